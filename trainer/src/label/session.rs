//! The state of a labelling: which image is shown, what was done last, and the table that every label goes into at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use smalti_trainer::data::LabelTable;
use smalti_trainer::{Error, Result};

use super::proposals::Proposals;

/// Keys of classes, in order; the rest are chosen by a click or by their name.
const KEYS: &str = "123456789abcdefghijklmnopqrstuvwxyz";
/// Images that the page fetches ahead.
const AHEAD: usize = 2;
/// Maximum number of classes: a page is no place for more.
const MAX_CLASSES: usize = 1000;

/// A labelling at work.
pub(super) struct Session {
    table: LabelTable,
    /// Rows in the order in which they are shown.
    order: Vec<usize>,
    /// The names of the classes; their order gives the keys, so new ones come last.
    classes: Vec<String>,
    proposals: Option<Proposals>,
    /// The place in `order` that is shown; none when every image has a label.
    at: Option<usize>,
    skipped: HashSet<usize>,
    /// Rows whose label changed, with the label before.
    done: Vec<(usize, Option<String>)>,
    /// Identities of the rows' files, for addresses.
    ids: Vec<String>,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub(super) struct View {
    total: usize,
    labelled: usize,
    skipped: usize,
    classes: Vec<ClassView>,
    image: Option<ImageView>,
    /// Addresses of the images that follow.
    ahead: Vec<String>,
    can_undo: bool,
}

/// A class on the page.
#[derive(Debug, Serialize)]
struct ClassView {
    name: String,
    key: Option<char>,
    count: usize,
}

/// An image on the page.
#[derive(Debug, Serialize)]
struct ImageView {
    id: String,
    address: String,
    name: String,
    /// Its place among all, from 1.
    place: usize,
    label: Option<String>,
    proposal: Option<Proposal>,
}

/// What the model says of an image.
#[derive(Debug, Serialize)]
struct Proposal {
    class: String,
    probability: f32,
}

impl Session {
    /// Starts at the first image without a label; with proposals, at the one that the model is least certain of. `known` are
    /// classes that need no image yet.
    pub(super) fn new(table: LabelTable, known: Vec<String>, proposals: Option<Proposals>) -> Session {
        let labels: BTreeSet<&String> = table.rows().iter().filter_map(|row| row.label.as_ref()).collect();
        let mut classes: Vec<String> = Vec::new();
        for name in known.iter().map(|name| name.trim()).chain(labels.into_iter().map(String::as_str)) {
            if !classes.iter().any(|known| known == name) {
                classes.push(name.to_owned());
            }
        }
        let rows = 0..table.rows().len();
        let (mut order, mut open): (Vec<usize>, Vec<usize>) =
            rows.partition(|row| proposals.is_some() && table.rows()[*row].label.is_some());
        proposals.iter().for_each(|proposals| proposals.sort(&mut open));
        order.extend(open);
        let ids = table.rows().iter().enumerate().map(|(i, row)| {
            let digest = Sha256::digest(row.file.as_os_str().as_encoded_bytes());
            let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{i}-{hex}")
        });
        let ids = ids.collect();
        let (skipped, done) = (HashSet::new(), Vec::new());
        let mut session = Session { table, order, classes, proposals, at: None, skipped, done, ids };
        session.at = session.next_from(0);
        session
    }

    /// The table.
    pub(super) fn table(&self) -> &LabelTable {
        &self.table
    }

    /// The row of an image by its identity; none of another table's.
    pub(super) fn row(&self, id: &str) -> Option<usize> {
        let row = id.split_once('-')?.0.parse().ok()?;
        self.ids.get(row).filter(|known| *known == id).map(|_| row)
    }

    fn known_row(&self, id: &str) -> Result<usize> {
        self.row(id)
            .ok_or_else(|| Error::Usage("this image is not of this table: load the page again".into()))
    }

    /// Gives an image a class and goes on to the next without one. The label is in the file when this returns.
    ///
    /// # Errors
    /// A name that no class can have; a table that cannot be saved, of which nothing changes.
    pub(super) fn label(&mut self, id: &str, class: &str) -> Result<()> {
        let row = self.known_row(id)?;
        let class = class.trim();
        let is_new = !self.classes.iter().any(|known| known == class);
        if is_new && self.classes.len() >= MAX_CLASSES {
            return Err(Error::Usage(format!("there are {MAX_CLASSES} classes, and no more are taken")));
        }
        let before = self.table.set(row, Some(class.to_owned()))?;
        if is_new {
            self.classes.push(class.to_owned());
        }
        self.skipped.remove(&row);
        self.done.push((row, before));
        self.at = self.next_from(self.place_of(row) + 1);
        Ok(())
    }

    /// Leaves an image for later.
    ///
    /// # Errors
    /// An image of another table.
    pub(super) fn skip(&mut self, id: &str) -> Result<()> {
        let row = self.known_row(id)?;
        if self.table.rows()[row].label.is_none() {
            self.skipped.insert(row);
        }
        self.at = self.next_from(self.place_of(row) + 1);
        Ok(())
    }

    /// Takes the last label back and shows its image.
    ///
    /// # Errors
    /// A table that cannot be saved, of which nothing changes.
    pub(super) fn undo(&mut self) -> Result<()> {
        if let Some((row, before)) = self.done.last().cloned() {
            self.table.set(row, before)?;
            self.done.pop();
            self.at = Some(self.place_of(row));
        }
        Ok(())
    }

    /// Shows the image before the one that is shown, or after it.
    pub(super) fn step(&mut self, back: bool) {
        let last = self.order.len().saturating_sub(1);
        self.at = match (self.at, back) {
            (Some(at), true) => Some(at.saturating_sub(1)),
            (Some(at), false) => Some((at + 1).min(last)),
            (None, true) => Some(last),
            (None, false) => None,
        };
    }

    fn place_of(&self, row: usize) -> usize {
        self.order.iter().position(|shown| *shown == row).unwrap_or(0)
    }

    /// The place of the next image without a label, from a place on and around; skipped ones come when no other is left.
    fn next_from(&mut self, start: usize) -> Option<usize> {
        let count = self.order.len();
        let places: Vec<usize> = (start..count).chain(0..start.min(count)).collect();
        let is_open = |place: &usize| self.table.rows()[self.order[*place]].label.is_none();
        let open: Vec<usize> = places.into_iter().filter(is_open).collect();
        let fresh = open.iter().find(|place| !self.skipped.contains(&self.order[**place])).copied();
        if fresh.is_none() {
            self.skipped.clear();
        }
        fresh.or(open.first().copied())
    }

    /// How many images have a label, and how many each class has.
    pub(super) fn counts(&self) -> (usize, BTreeMap<&str, usize>) {
        let labels = self.table.rows().iter().filter_map(|row| row.label.as_deref());
        labels.fold((0, BTreeMap::new()), |(all, mut counts), label| {
            *counts.entry(label).or_default() += 1;
            (all + 1, counts)
        })
    }

    /// What the page shows now.
    pub(super) fn view(&self) -> View {
        let (labelled, counts) = self.counts();
        let mut keys = KEYS.chars();
        let classes = self.classes.iter().map(|name| ClassView {
            name: name.clone(),
            key: keys.next(),
            count: counts.get(name.as_str()).copied().unwrap_or(0),
        });
        let following = self.at.map_or(&[][..], |at| self.order.get(at + 1..).unwrap_or_default());
        let ahead = following.iter().filter(|row| self.table.rows()[**row].label.is_none());
        View {
            total: self.order.len(),
            labelled,
            skipped: self.skipped.len(),
            classes: classes.collect(),
            image: self.at.map(|at| self.image(at)),
            ahead: ahead.take(AHEAD).map(|row| self.address(*row)).collect(),
            can_undo: !self.done.is_empty(),
        }
    }

    fn image(&self, at: usize) -> ImageView {
        let row = self.order[at];
        let proposal = self.proposals.as_ref().and_then(|proposals| proposals.of(row));
        ImageView {
            id: self.ids[row].clone(),
            address: self.address(row),
            name: self.table.name(row),
            place: at + 1,
            label: self.table.rows()[row].label.clone(),
            proposal: proposal.map(|(class, probability)| Proposal { class: class.to_owned(), probability }),
        }
    }

    fn address(&self, row: usize) -> String {
        format!("/image/{}", self.ids[row])
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use smalti_trainer::data::Row;

    use super::*;

    fn session(labels: &[Option<&str>]) -> (tempfile::TempDir, Session) {
        let folder = tempfile::tempdir().unwrap();
        let rows = labels.iter().enumerate().map(|(i, label)| Row {
            file: folder.path().join(format!("{i}.png")),
            label: label.map(str::to_owned),
        });
        let table = LabelTable::new(&folder.path().join("labels.csv"), folder.path(), rows.collect());
        let session = Session::new(table, vec!["cat".into()], None);
        (folder, session)
    }

    fn shown(session: &Session) -> Option<usize> {
        session.at.map(|at| session.order[at])
    }

    fn id(session: &Session, row: usize) -> String {
        session.ids[row].clone()
    }

    #[test]
    fn labels_go_on_to_the_next_and_skipped_images_come_last() {
        let (folder, mut session) = session(&[None, Some("dog"), None, None]);
        assert_eq!((shown(&session), &session.classes[..]), (Some(0), &["cat".to_owned(), "dog".into()][..]));
        session.skip(&id(&session, 0)).unwrap();
        assert_eq!(shown(&session), Some(2));
        session.label(&id(&session, 2), " owl ").unwrap();
        assert_eq!((shown(&session), session.classes.len(), session.view().skipped), (Some(3), 3, 1));
        session.label(&id(&session, 3), "cat").unwrap();
        assert_eq!((shown(&session), session.view().skipped), (Some(0), 0), "what was skipped comes again");
        session.skip(&id(&session, 0)).unwrap();
        assert_eq!(shown(&session), Some(0), "nothing else is left");
        session.label(&id(&session, 0), "cat").unwrap();
        assert_eq!(shown(&session), None);
        let text = std::fs::read_to_string(folder.path().join("labels.csv")).unwrap();
        assert_eq!(text, "path,label\n0.png,cat\n1.png,dog\n2.png,owl\n3.png,cat\n");
        assert_eq!(session.counts(), (4, BTreeMap::from([("cat", 2), ("dog", 1), ("owl", 1)])));
    }

    #[test]
    fn everything_can_be_taken_back_and_looked_at() {
        let (folder, mut session) = session(&[None, None]);
        session.undo().unwrap();
        session.label(&id(&session, 0), "cat").unwrap();
        session.label(&id(&session, 1), "dog").unwrap();
        session.step(true);
        session.label(&id(&session, 1), "cat").unwrap();
        session.undo().unwrap();
        assert_eq!((shown(&session), session.table.rows()[1].label.as_deref()), (Some(1), Some("dog")));
        session.undo().unwrap();
        session.undo().unwrap();
        assert_eq!((shown(&session), session.counts().0, session.view().can_undo), (Some(0), 0, false));
        let text = std::fs::read_to_string(folder.path().join("labels.csv")).unwrap();
        assert_eq!(text, "path,label\n0.png,\n1.png,\n");
        session.step(true);
        assert_eq!(shown(&session), Some(0));
        session.step(false);
        session.step(false);
        assert_eq!(shown(&session), Some(1));
    }

    #[test]
    fn what_is_not_of_the_table_is_refused() {
        let (_folder, mut session) = session(&[None, None]);
        for id in ["", "0", "0-", "9-0000000000000000", "-1-ff", "../0"] {
            assert!(session.label(id, "cat").is_err() && session.row(id).is_none(), "{id}");
        }
        let first = id(&session, 0);
        for class in ["", "  ", "a\nb", &"x".repeat(2000)] {
            assert_eq!(session.label(&first, class).unwrap_err().exit_code(), 2);
        }
        assert_eq!((session.counts().0, session.classes.len()), (0, 1));
        assert!(!PathBuf::from(session.table().path()).exists(), "nothing was written");
    }

    #[test]
    fn keys_are_digits_then_letters() {
        let (_folder, mut session) = session(&[None; 40]);
        (0..40).for_each(|i| session.label(&id(&session, i), &format!("class {i}")).unwrap());
        let keys: Vec<Option<char>> = session.view().classes.iter().map(|class| class.key).collect();
        assert_eq!(
            [keys[0], keys[8], keys[9], keys[34], keys[35]],
            [Some('1'), Some('9'), Some('a'), Some('z'), None]
        );
    }
}
