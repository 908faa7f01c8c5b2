//! `run` on a stream: a line a frame until the stream ends or a signal comes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smalti_runtime::models::image;
use smalti_runtime::stream::{Counts, Frame, Keep, Next, Settings, Spec, Stream};
use smalti_runtime::watch::WatchHandle;
use smalti_runtime::{Error, Prediction, Session};
use smalti_tools::eval::share;

use super::args::{Args, RunArgs};
use super::inputs::BAD_INPUT;
use super::learn::Answerer;
use super::run::{as_json, as_text, open_bank};
use super::service::Service;
use super::signals::Stop;
use super::{open, out};

/// How long a signal waits at most while no frame comes.
const PATIENCE: Duration = Duration::from_millis(100);

/// The share of bad frames that is put up with where nothing is said.
const MAX_BAD: f64 = 0.05;

pub(super) fn run(spec: &Spec, command: &RunArgs, args: &Args) -> anyhow::Result<u8> {
    let stop = Stop::listen();
    let RunArgs { model, output, stream: flags, file, foreign, .. } = command;
    let (model, watch) = open::watched(model, output.as_ref(), &flags.watch, file, foreign)?;
    let session = model.session()?;
    let keep = if flags.every_frame { Keep::Every } else { spec.place.keep() };
    let settings = Settings { keep, max_frame_bytes: flags.max_frame_bytes as usize };
    let mut stream = Stream::open(spec, &settings)?;
    let name = command.inputs.first().map_or_else(String::new, |input| input.display().to_string());
    let bank = open_bank(command, session.model())?;
    let (service, tally) = (Service::ready(), Tally::default());
    let mut run = Run { command, args, name, session, bank, watch, service, tally };
    let ended = run.all(&mut stream, &stop);
    run.tally.counts = stream.counts();
    if !args.quiet {
        out::note(run.tally.in_words());
    }
    match ended? {
        Some(code) => Ok(code),
        None => run.tally.judge(&run.name, command.max_bad.unwrap_or(MAX_BAD)),
    }
}

/// What came of a stream's frames.
#[derive(Default)]
struct Tally {
    counts: Counts,
    answered: u64,
    /// Frames that were complete, but are no image.
    undecodable: u64,
    /// Models that took the place of the one before.
    swaps: u64,
}

impl Tally {
    fn bad(&self) -> u64 {
        self.counts.bad + self.undecodable
    }

    fn in_words(&self) -> String {
        let Tally { counts, answered, swaps, .. } = self;
        let mut text = format!("{answered} frames answered, {} dropped, {} bad", counts.dropped, self.bad());
        if counts.outside > 0 {
            text += &format!(", {} bytes outside of frames", counts.outside);
        }
        if counts.ended_within {
            text += ", the last frame incomplete";
        }
        if *swaps > 0 {
            text += &format!(", the model replaced {swaps} times");
        }
        text
    }

    /// The exit code for a stream that has ended.
    fn judge(&self, name: &str, most_bad: f64) -> anyhow::Result<u8> {
        if self.counts.frames + self.counts.bad == 0 {
            let problem = "the stream ended without a frame".into();
            return Err(Error::Data { place: name.into(), problem }.into());
        }
        let bad = share(self.bad(), self.counts.frames + self.counts.bad);
        if bad <= most_bad {
            return Ok(0);
        }
        let (bad, most) = (100.0 * bad, 100.0 * most_bad);
        out::error(format!("{name}: {bad:.1} % of the frames are bad, --max-bad allows {most:.1} %"));
        Ok(BAD_INPUT)
    }
}

struct Run<'a> {
    command: &'a RunArgs,
    args: &'a Args,
    name: String,
    session: Session,
    bank: Option<Answerer>,
    watch: Option<WatchHandle>,
    service: Service,
    tally: Tally,
}

impl Run<'_> {
    /// Answers frames until the stream ends or a signal comes, whose exit code this gives.
    fn all(&mut self, stream: &mut Stream, stop: &Stop) -> anyhow::Result<Option<u8>> {
        let mut frame = Frame::default();
        loop {
            if let Some(code) = stop.code() {
                return Ok(Some(code));
            }
            self.look_for_a_model();
            match stream.next(&mut frame, PATIENCE)? {
                Next::Idle => continue,
                Next::End => return Ok(None),
                Next::Frame => {}
            }
            self.tally.counts = stream.counts();
            self.answer(&frame)?;
            // Frames feed the watchdog, so that a camera that hangs is started again like a program that does.
            self.service.alive(|| self.tally.in_words());
        }
    }

    /// Goes on with a new model, if there is one.
    fn look_for_a_model(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let Some(news) = watch.news() else { return };
        let path = watch.path().display().to_string();
        match news {
            Ok(session) => {
                self.session = session;
                self.tally.swaps += 1;
                if !self.args.quiet {
                    let version = self.session.model().record().map_or("", |record| &record.version);
                    out::note(format!("{path} was replaced; from now on its version {version} runs"));
                }
            }
            Err(error) => {
                out::note(format!("warning: {path} was replaced, but the old model runs on: {error}"));
            }
        }
    }

    /// Classifies a frame and prints what comes of it.
    fn answer(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let start = Instant::now();
        let prediction = frame
            .pixels_for(&image::Limits::default(), self.session.model())
            .and_then(|pixels| self.session.classify_view(pixels.view()))
            .and_then(|prediction| self.with_bank(prediction));
        let ms = start.elapsed().as_secs_f64() * 1e3;
        match prediction {
            Ok(prediction) => {
                self.tally.answered += 1;
                self.print(frame, &prediction, ms)
            }
            Err(error @ Error::Data { .. }) => {
                self.tally.undecodable += 1;
                // One line says what is wrong; a camera that sends nothing but bad frames must not fill the disk.
                if self.tally.undecodable == 1 {
                    out::error(format!("{}: {error} (more of this kind are counted)", self.name));
                } else {
                    log::info!("{}: {error}", self.name);
                }
                self.print_json(frame, json!({ "error": error.to_string() }))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The answer among old and learned classes, where there is a bank.
    fn with_bank(&mut self, mut prediction: Prediction) -> Result<Prediction, Error> {
        if let Some(bank) = &mut self.bank {
            bank.rank(self.session.model(), &mut prediction)?;
        }
        Ok(prediction)
    }

    fn print(&self, frame: &Frame, prediction: &Prediction, ms: f64) -> anyhow::Result<()> {
        if self.args.json {
            let predictions = as_json(prediction, self.command.top_k);
            return self.print_json(frame, json!({ "predictions": predictions, "ms": ms }));
        }
        out::line(&as_text(&format!("frame {}", frame.number()), prediction, self.command.top_k))
    }

    /// One object, with the counts so far.
    fn print_json(&self, frame: &Frame, fields: Value) -> anyhow::Result<()> {
        if !self.args.json {
            return Ok(());
        }
        let Tally { counts, swaps, .. } = &self.tally;
        let mut object = json!({ "input": self.name, "frame": frame.number() });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
            object.insert("dropped".into(), counts.dropped.into());
            object.insert("bad".into(), self.tally.bad().into());
            if self.watch.is_some() {
                object.insert("swaps".into(), (*swaps).into());
            }
        }
        out::json(object)
    }
}
