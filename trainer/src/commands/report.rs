//! `smalti report`: a page about runs, once or for as long as they are at work.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result, files};

use crate::args::{Global, ReportArgs};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::signals::Stop;
use crate::plan::named;
use crate::report::{self, Explain, PAGE, Reports};

const EXPLAIN: [(&str, Explain); 2] = [("occlusion", Explain::Occlusion), ("attention", Explain::Attention)];

/// Time between two pages about a run at work, and between two looks whether it has ended.
const EVERY: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);

pub(crate) fn run(args: &ReportArgs, global: &Global) -> anyhow::Result<()> {
    if args.runs.is_empty() {
        return Err(Error::Usage("RUN is missing: expected the folder of a run".into()).into());
    }
    let exec = super::machine(&args.machine)?;
    let is_text = args.text == Some(true);
    if args.follow == Some(true) && !is_text {
        follow(args, &exec, global)?;
    }
    let reports = gather(args, &exec)?;
    let page = if is_text && args.output.is_none() { None } else { Some(write(args, &reports.html(None))?) };
    if global.json {
        let mut found = reports.json()?;
        found["report"] = page.map_or(Value::Null, |page| page.display().to_string().into());
        return out::json(found);
    }
    if is_text {
        return out::text(&reports.text());
    }
    let page = page.unwrap_or_default();
    out::text(&page.display().to_string())?;
    let then = reports.next().map_or(String::new(), |command| format!(", then {command}"));
    next(global, &format!("open {} in a browser{then}", page.display()));
    Ok(())
}

fn gather(args: &ReportArgs, exec: &ExecConfig) -> Result<Reports> {
    let explain = args.explain.as_deref().map(|name| named("explain", name, &EXPLAIN)).transpose()?;
    Reports::gather(&args.runs, args.data.as_deref(), explain.unwrap_or_default(), exec)
}

/// Writes pages for as long as one of the runs is at work.
fn follow(args: &ReportArgs, exec: &ExecConfig, global: &Global) -> anyhow::Result<()> {
    let stop = Stop::listen();
    loop {
        let reports = gather(args, exec)?;
        if !reports.is_running {
            return Ok(());
        }
        let page = write(args, &reports.html(Some(EVERY.as_secs() as u32)))?;
        tell(global, &format!("{}: the run is at work", page.display()));
        let written = Instant::now();
        while written.elapsed() < EVERY && report::is_running(&args.runs) {
            stop.check()?;
            std::thread::sleep(LOOK);
        }
    }
}

/// Writes a page to where the arguments say. Gives its path.
fn write(args: &ReportArgs, html: &str) -> Result<PathBuf> {
    match (&args.output, &args.runs[..]) {
        (Some(output), _) => files::write(output, html.as_bytes()).map(|()| output.clone()),
        (None, [run]) => report::write(run, html.as_bytes()),
        (None, _) => {
            let path = Path::new(PAGE);
            files::write(path, html.as_bytes()).map(|()| path.to_owned())
        }
    }
}
