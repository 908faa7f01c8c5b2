//! `serve`: a model behind HTTP, with a page to try it.
//!
//! One thread does all input and output ([`http`]), each session has a thread of its own ([`pool`]). Who may ask is settled
//! before anything of a body is read ([`access`]); what an image is answered, [`answer`] says, and what was learned beside
//! the model, [`learned`] keeps.

mod access;
mod answer;
mod clock;
mod http;
mod learned;
mod metrics;
mod page;
mod pool;
mod reply;
mod route;

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args as Flags;
use serde_json::json;
use smalti_runtime::anomaly::AnomalyDetector;
use smalti_runtime::watch::WatchHandle;
use smalti_runtime::{Error, Model, cpu};

use super::args::{Args, FileArgs, ForeignArgs, WatchArgs, seconds};
use super::service::Service;
use super::signals::Stop;
use super::{anomaly, open, out};
use access::{Access, Token};
use http::{Limits, Server};
use learned::{Learned, Lessons};
use metrics::Metrics;
use page::Page;
use pool::Pool;

#[derive(Debug, Flags)]
pub(crate) struct ServeArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// Address and port; port 0 is a free one. Addresses that other machines reach need a token.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub(crate) listen: String,
    /// Answer only requests that carry this token (`Authorization: Bearer TOKEN`). Other users of this machine may see it in
    /// the list of processes: better --token-file.
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file whose first line is the token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Images that are answered at a time, each by a session on a thread of its own [default: the number of cores].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) sessions: Option<u16>,
    /// Connections at a time; more are refused.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) max_connections: u16,
    /// The most bytes of an image. Memory for images that arrive is at most this for each connection.
    #[arg(long, default_value_t = 32 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_body_bytes: u32,
    /// Seconds for a request from its first line to the answer, and again to take the answer; slower clients are cut off.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// The output of the model that answers, where it has several [default: `logits`, else the first of a score a class].
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// Learned classes besides the model's: a class bank of `smalti-run learn`. It can be taught over HTTP and on the page,
    /// and is saved at once; if there is none, it is made.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) bank: Option<PathBuf>,
    /// Say what is unusual, too: a detector of `smalti-run anomaly fit`.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) anomaly: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

/// What `serve --help` ends with.
pub(super) const EXAMPLE: &str = "Examples:
  smalti-run serve model.onnx                       the page is at http://127.0.0.1:8080/
  curl --data-binary @photo.jpg 'http://127.0.0.1:8080/classify?top_k=3'
  curl --data-binary @photo.jpg http://127.0.0.1:8080/explain -o heatmap.png
  smalti-run serve model.onnx --bank classes.bank   wrong? the page takes the right class, and learns it
  smalti-run serve model.onnx --listen 0.0.0.0:8080 --token-file token.txt";

pub(super) fn run(command: &ServeArgs, args: &Args) -> anyhow::Result<u8> {
    let stop = Stop::listen();
    let token = token(command)?;
    let addresses = addresses(&command.listen, token.is_some())?;
    let (model, watch, detector) = open_model(command)?;
    if model.preprocess().is_none() {
        let problem = "the model file does not say how to prepare images: give --mean and --std";
        return Err(Error::Usage(problem.into()).into());
    }
    let bank = match &command.bank {
        Some(place) => Some(Lessons::open(place, &model, open::trust(&command.file)?)?),
        None => None,
    };
    let listener = TcpListener::bind(&addresses[..]).map_err(|source| Error::Io {
        action: "listen on",
        path: command.listen.clone().into(),
        source,
    })?;
    let place = listener.local_addr()?;
    let local = place.ip().is_loopback();
    let sessions = command.sessions.map_or_else(cpu::cores, usize::from);
    let server = Arc::new(Server {
        access: Access::new(token, local),
        pool: Pool::start(model, Learned { bank, detector }, sessions)?,
        metrics: Metrics::default(),
        page: Page::new(),
        limits: Limits {
            connections: command.max_connections.into(),
            body_bytes: command.max_body_bytes as usize,
            time: Duration::from_secs_f64(command.timeout),
        },
    });
    let page = format!("http://{place}/");
    match args.json {
        true => out::json(json!({ "listening": page }))?,
        false => out::line(&format!("listening on {page} (Ctrl-C stops)"))?,
    }
    if !local && !args.quiet {
        out::note(
            "what goes over the network is not encrypted: a proxy in front can do that (docs/serving.md)",
        );
    }
    let code = server.run(listener, &stop, watch, Service::ready())?;
    Ok(code)
}

/// The model, with the tokens that a detector looks at, if there is one.
fn open_model(command: &ServeArgs) -> Result<(Model, Option<WatchHandle>, Option<AnomalyDetector>), Error> {
    let ServeArgs { model, file, foreign, .. } = command;
    let output = command.output.as_ref();
    match &command.anomaly {
        Some(detector) => {
            let (model, detector) = anomaly::open_both(model, detector, output, file, foreign)?;
            Ok((model, None, Some(detector)))
        }
        None => {
            let (model, watch) = open::watched(model, output, &command.watch, file, foreign)?;
            Ok((model, watch, None))
        }
    }
}

/// Nothing is ever left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses to listen on. Those that other machines reach need a token.
fn addresses(text: &str, has_token: bool) -> Result<Vec<SocketAddr>, Error> {
    let usage = |problem: &str| Error::Usage(format!("--listen {text}: {problem}"));
    let found = text.to_socket_addrs();
    let found: Vec<_> = found
        .map_err(|error| usage(&format!("{error}; expected ADDRESS:PORT, such as 127.0.0.1:8080")))?
        .collect();
    match found.iter().find(|address| !address.ip().is_loopback()) {
        Some(_) if !has_token => Err(usage(
            "other machines can reach this address: give --token-file FILE, or listen on 127.0.0.1",
        )),
        _ if found.is_empty() => Err(usage("no address of that name")),
        _ => Ok(found),
    }
}

/// The token, if one is asked for.
fn token(command: &ServeArgs) -> Result<Option<Token>, Error> {
    let text = match (&command.token, &command.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => {
            let text = fs::read_to_string(file);
            let text = text.map_err(|source| Error::Io { action: "read", path: file.clone(), source })?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
        (None, None) => return Ok(None),
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let expected = "expected ASCII letters, digits and signs, at least one, without spaces";
        return Err(Error::Usage(format!("a token of {} characters: {expected}", text.chars().count())));
    }
    Ok(Some(Token::new(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_token() {
        for text in ["127.0.0.1:0", "[::1]:80", "127.8.9.1:1"] {
            assert_eq!(addresses(text, false).unwrap().len(), 1, "{text}");
        }
        for text in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[::ffff:127.0.0.1]:80"] {
            let error = addresses(text, false).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("--token-file"), "{error}");
            assert_eq!(addresses(text, true).unwrap().len(), 1);
        }
        for text in ["", "127.0.0.1", "8080", "127.0.0.1:99999"] {
            assert_eq!(addresses(text, true).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
