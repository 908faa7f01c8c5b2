//! `smalti label`: a page on this machine that takes the class of one image after another by key press.
//!
//! [`session`] knows which image is shown and saves every label at once; [`app`] answers the page's requests, which
//! [`http`] reads within bounds and [`server`] lets in from this machine's browser alone; [`previews`] are the images,
//! [`proposals`] what a classifier says of them. The page itself is in `page/`.

mod app;
mod http;
mod previews;
mod proposals;
mod server;
mod session;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use smalti_trainer::Result;
use smalti_trainer::data::{Dataset, LabelTable, Split};

use crate::args::{Global, LabelArgs};
use crate::commands;
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::signals::Stop;
use crate::plan;
use app::App;
use proposals::Proposals;
use session::Session;

/// The default table.
const TABLE: &str = "labels.csv";
/// How often a signal is looked for.
const EVERY: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &LabelArgs, global: &Global) -> anyhow::Result<()> {
    let folder = plan::folder(&args.data)?;
    let path = args.labels.clone().unwrap_or_else(|| TABLE.into());
    let (exec, stop) = (commands::machine(&args.machine)?, Stop::listen());
    let (listener, address) = server::listen(args.port)?;
    let table = table(&path, &folder)?;
    let proposals = match &args.init {
        Some(run) => {
            let run = commands::runs::of_train(run);
            tell(global, &format!("asking {} about {} images", run.display(), table.rows().len()));
            Some(Proposals::new(&run, &table.dataset()?, &exec)?)
        }
        None => None,
    };
    let mut known = args.classes.clone().unwrap_or_default();
    known.extend(proposals.iter().flat_map(|proposals| proposals.classes()).cloned());
    let app = Arc::new(App::new(Session::new(table, known, proposals)));
    let page = Arc::clone(&app);
    server::start(listener, address, move |request| page.answer(request));
    tell(global, &format!("open http://{address}/ in a browser; Ctrl-C ends"));
    while stop.code().is_none() {
        thread::sleep(EVERY);
    }
    report(&app.session(), &folder, global)
}

/// The table at `path`; or a new one of all images of the folder that may be learned from, with the labels that class
/// folders give them.
fn table(path: &Path, folder: &Path) -> Result<LabelTable> {
    if path.exists() {
        return LabelTable::open(path, folder);
    }
    let data = Dataset::open(folder, Split::Train)?;
    let mut table = LabelTable::new(path, folder, LabelTable::rows_of(&data)?);
    table.save()?;
    Ok(table)
}

/// Says what was done, and what to do next.
fn report(session: &Session, folder: &Path, global: &Global) -> anyhow::Result<()> {
    let (table, (labelled, counts)) = (session.table(), session.counts());
    let (path, all) = (table.path().display(), table.rows().len());
    if global.json {
        out::json(json!({"file": table.path(), "images": all, "labelled": labelled, "classes": counts}))?;
    } else {
        let list: Vec<String> = counts.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let list = if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) };
        out::text(&format!("{labelled} of {all} images labelled in {path}{list}"))?;
    }
    let (command, purpose) =
        if counts.len() < 2 { ("label", ", until two classes have labels") } else { ("train", "") };
    let (folder, path) = (out::quoted(folder), out::quoted(table.path()));
    next(global, &format!("smalti {command} {folder} --labels {path}{purpose}"));
    Ok(())
}
