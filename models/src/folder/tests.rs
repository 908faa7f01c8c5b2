//! Folders as they are found in the world.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    /// With a file in each of these places.
    fn of(files: &[&str]) -> Folder {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("smalti-folder-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        files.iter().for_each(|file| folder.put(file, "x"));
        folder
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> ImageFolder {
        ImageFolder::read(&self.0).unwrap()
    }

    fn error(&self) -> String {
        ImageFolder::read(&self.0).unwrap_err().to_string()
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned()
    }

    /// `path split class` of every image.
    fn images(&self) -> Vec<String> {
        let set = self.read();
        let class = |image: &FolderImage| image.class.map_or("-", |class| &set.classes[class as usize]);
        let line =
            |image: &FolderImage| format!("{} {} {}", self.relative(&image.path), image.split, class(image));
        set.images.iter().map(line).collect()
    }

    /// Class counts of a split, without those of none.
    fn counts(&self, split: Split) -> Vec<(String, usize)> {
        let set = self.read();
        let of = |class: u32| set.of_split(split).filter(|image| image.class == Some(class)).count();
        let counts = (0u32..).zip(&set.classes).map(|(class, name)| (name.clone(), of(class)));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    fn notes(&self) -> String {
        self.read().notes.join("\n")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn counts(of: &[(&str, usize)]) -> Vec<(String, usize)> {
    of.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn class_folders_are_sorted_by_bytes() {
    let folder =
        Folder::of(&["b/2.png", "b/10.png", "a/x/y/deep.PNG", "B/1.jpg", "loose.bmp", "b/notes.txt"]);
    fs::create_dir(folder.0.join("empty")).unwrap();
    let images = [
        "B/1.jpg train B",
        "a/x/y/deep.PNG train a",
        "b/10.png train b",
        "b/2.png train b",
        "loose.bmp train -",
    ];
    assert_eq!(folder.images(), images);
    assert!(folder.notes().contains("`empty`"), "{}", folder.notes());
    let listed = Tree::read(&folder.0).unwrap().images();
    let listed: Vec<String> = listed.iter().map(|path| folder.relative(path)).collect();
    assert_eq!(listed, ["B/1.jpg", "a/x/y/deep.PNG", "b/10.png", "b/2.png", "loose.bmp"]);
}

#[test]
fn clutter_is_left_out() {
    let folder = Folder::of(&[
        "a/1.png",
        "a/.hidden.png",
        ".git/x.png",
        "@eaDir/a.jpg",
        "a/@eaDir/SYNOPHOTO.jpg",
        "__MACOSX/a/1.png",
        "a/._1.png",
        "a/Thumbs.db",
        "a/.ipynb_checkpoints/1.png",
        "$RECYCLE.BIN/2.png",
    ]);
    assert_eq!(folder.images(), ["a/1.png train a"]);
    assert_eq!(folder.notes(), "");
}

#[test]
fn formats_that_are_not_read_are_counted_once() {
    let folder = Folder::of(&["a/1.png", "a/2.HEIC", "b/3.heic", "b/4.png", "b/scan.tif", "b/labels.xml"]);
    let notes = folder.notes();
    assert_eq!(notes.lines().count(), 1, "{notes}");
    assert!(
        notes.contains("2 HEIC files and 1 TIFF file are left out: convert them to JPEG or PNG"),
        "{notes}"
    );
    assert!(notes.contains("a/2.HEIC"), "{notes}");
}

#[test]
fn splits_are_found_under_all_their_names() {
    for [train, test] in [
        ["train", "test"],
        ["Training", "Testing"],
        ["train_set", "test_set"],
        ["TRAIN", "TEST"],
        ["trainset", "testset"],
        ["seg_train", "seg_test"],
        ["train-images", "test-images"],
        ["train", "valid"],
        ["train2017", "val2017"],
        ["train set", "dev set"],
        ["cifar_train", "cifar_eval"],
    ] {
        let at = |split: &str, rest: &str| format!("{split}/{rest}");
        let files = [at(train, "cat/1.png"), at(train, "dog/1.png"), at(test, "cat/2.png")];
        let folder = Folder::of(&files.each_ref().map(String::as_str));
        let set = folder.read();
        assert_eq!(set.classes, ["cat", "dog"], "{train}");
        assert_eq!((set.has_splits, set.splits().len(), set.splits()[0]), (true, 2, Split::Train), "{train}");
        assert_eq!(set.of_split(Split::Train).count(), 2, "{train}");
        assert!(set.notes.is_empty(), "{:?}", set.notes);
    }
}

#[test]
fn what_looks_like_a_split_and_is_none_is_named() {
    let folder = Folder::of(&["bus/1.png", "car/1.png", "train/1.png"]);
    assert_eq!(
        (folder.read().classes, folder.read().has_splits),
        (vec!["bus".into(), "car".into(), "train".into()], false)
    );
    assert!(folder.notes().contains("`train` may look like a split"), "{}", folder.notes());
    let folder = Folder::of(&["cat/deep/train/1.png", "cat/deep/test/1.png", "dog/1.png"]);
    assert_eq!(folder.read().classes, ["cat", "dog"]);
    let notes = folder.notes();
    assert!(notes.contains("`test` and `train`") && notes.contains("cat/deep"), "{notes}");
}

#[test]
fn a_train_folder_of_class_folders_is_a_split() {
    let folder = Folder::of(&["train/cat/1.png", "train/dog/2.png", "samples/3.png", "more/4.png"]);
    assert_eq!(folder.images(), ["train/cat/1.png train cat", "train/dog/2.png train dog"]);
    assert!(folder.notes().contains("not `more` and `samples`"), "{}", folder.notes());
    // Classes that all have folders of their own, or a class of loose images, are classes.
    for files in
        [&["bus/city/1.png", "train/steam/2.png"][..], &["bus/1.png", "train/steam/2.png", "train/3.png"]]
    {
        assert_eq!(Folder::of(files).read().classes, ["bus", "train"]);
    }
}

#[test]
fn what_lies_next_to_splits_is_named() {
    let folder = Folder::of(&["train/a/1.png", "Testing/a/1.png", "notes/a.png", "cover.jpg"]);
    assert_eq!(folder.images(), ["Testing/a/1.png test a", "train/a/1.png train a"]);
    assert!(folder.notes().contains("not `notes` and 1 loose image"), "{}", folder.notes());
    let folder = Folder::of(&["train/a/1.png", "valid/a/1.png", "validation/a/2.png"]);
    assert_eq!(folder.read().of_split(Split::Val).count(), 2);
    assert!(folder.notes().contains("`valid` and `validation`"), "{}", folder.notes());
}

#[test]
fn splits_in_class_folders_are_understood() {
    let folder = Folder::of(&[
        "cat/train/1.png",
        "cat/test/2.png",
        "dog/test/3.png",
        "dog/train/4.png",
        "dog/train/5.png",
    ]);
    assert_eq!(folder.counts(Split::Train), counts(&[("cat", 1), ("dog", 2)]));
    assert_eq!(folder.counts(Split::Test), counts(&[("cat", 1), ("dog", 1)]));
    assert!(
        folder.read().has_splits && folder.notes().contains("inside the class folders"),
        "{}",
        folder.notes()
    );
}

#[test]
fn splits_in_some_class_folders_are_refused() {
    for files in [
        &["cat/train/1.png", "cat/test/2.png", "dog/3.png"][..],
        &["cat/train/1.png", "cat/test/2.png", "dog/train/4.png", "dog/5.png"],
        &["cat/train/1.png", "cat/test/2.png", "dog/train/4.png", "dog/test/5.png", "dog/more/6.png"],
    ] {
        let error = Folder::of(files).error();
        assert!(error.contains("`cat`") && error.contains("`dog`") && error.contains("`test`"), "{error}");
    }
    let error =
        Folder::of(&["cat_train/1.png", "cat_test/1.png", "dog_train/1.png", "dog_test/1.png"]).error();
    assert!(error.contains("`cat_test`") && error.contains("`dog_train`"), "{error}");
}

#[test]
fn a_folder_around_the_splits_is_looked_through() {
    let folder =
        Folder::of(&["data/set/train/cat/1.png", "data/set/test/cat/2.png", "data/set/train/dog/1.png"]);
    assert_eq!(folder.counts(Split::Test), counts(&[("cat", 1)]));
    let folder = Folder::of(&[
        "seg_train/seg_train/cat/1.png",
        "seg_test/seg_test/cat/1.png",
        "seg_pred/seg_pred/9.jpg",
    ]);
    let (train, test) = (folder.counts(Split::Train), folder.counts(Split::Test));
    assert_eq!((train, test), (counts(&[("cat", 1)]), counts(&[("cat", 1)])));
    // One class folder is no folder around splits.
    let folder = Folder::of(&["cat/train/1.png", "cat/test/2.png"]);
    assert_eq!((folder.counts(Split::Train), folder.read().has_splits), (counts(&[("cat", 1)]), true));
}

#[test]
fn a_class_that_train_does_not_have_is_unlabelled() {
    let folder = Folder::of(&[
        "train/cat/1.png",
        "train/dog/1.png",
        "test/unknown/7.png",
        "test/unknown/8.png",
        "test/dog/9.png",
    ]);
    assert_eq!(folder.read().classes, ["cat", "dog"]);
    assert_eq!(
        folder.images()[..3],
        ["test/dog/9.png test dog", "test/unknown/7.png test -", "test/unknown/8.png test -"]
    );
    assert!(
        folder.notes().contains("test/unknown") && folder.notes().contains("2 images"),
        "{}",
        folder.notes()
    );
    // Where train has no classes, those of the others are all there is.
    assert_eq!(Folder::of(&["train/1.png", "test/cat/1.png"]).read().classes, ["cat"]);
    assert_eq!(Folder::of(&["test/b/1.png", "test/a/1.png"]).read().classes, ["a", "b"]);
}

#[test]
fn flat_splits_have_no_labels() {
    let folder = Folder::of(&["train/cat/1.png", "test/1.png", "test/2.png"]);
    assert_eq!(folder.images(), ["test/1.png test -", "test/2.png test -", "train/cat/1.png train cat"]);
    // A split without images is none.
    let folder = Folder::of(&["train/cat/1.png", "test/readme.txt"]);
    assert_eq!(folder.read().splits(), [Split::Train]);
}

#[test]
fn a_folder_of_unlabelled_images_is_no_class() {
    let folder = Folder::of(&["cat/1.png", "unlabelled/2.png"]);
    assert_eq!(folder.images(), ["cat/1.png train cat", "unlabelled/2.png train -"]);
    let folder = Folder::of(&["train/cat/1.png", "test/cat/2.png", "Unlabeled/3.png"]);
    assert_eq!(folder.images()[2], "Unlabeled/3.png train -");
    assert_eq!((folder.read().splits().len(), folder.notes().as_str()), (2, ""));
}

#[test]
fn known_labels_come_before_the_names_of_splits() {
    let folder = Folder::of(&["test/1.png", "train/1.png"]);
    let tree = Tree::read(&folder.0).unwrap();
    let set = ImageFolder::arrange(&tree, &["test".into(), "train".into(), "x".into()]).unwrap();
    assert_eq!((set.classes.len(), set.has_splits), (2, false));
    assert!(ImageFolder::arrange(&tree, &["test".into()]).unwrap().has_splits);
}

#[test]
fn runs_are_left_out() {
    let folder = Folder::of(&[
        "cat/1.png",
        "runs/a/recon/step-1.png",
        "runs/a/smalti-files.txt",
        "runs/b/smalti-files.txt",
        "dog/1.png",
    ]);
    assert_eq!(folder.images(), ["cat/1.png train cat", "dog/1.png train dog"]);
    let notes = folder.notes();
    assert_eq!(notes.matches("smalti-files.txt").count(), 1, "{notes}");
    assert!(notes.contains("2 folders") && notes.contains("runs/a"), "{notes}");
    // In a run's own folder, what the run wrote is left out.
    folder.put("smalti-files.txt", "# Written by smalti\nrecon/step-1.png\n\n../x\n");
    folder.put("recon/step-1.png", "x");
    assert_eq!(folder.images(), ["cat/1.png train cat", "dog/1.png train dog"]);
}

#[cfg(unix)]
#[test]
fn links_in_circles_end_and_pipes_are_left_out() {
    use std::os::unix::fs::symlink;
    let folder = Folder::of(&["a/1.png", "b/1.png"]);
    let at = |name: &str| folder.0.join(name);
    symlink(at("a"), at("a/again")).unwrap();
    symlink(&folder.0, at("a/up")).unwrap();
    symlink(folder.0.parent().unwrap(), at("a/upper")).unwrap();
    fs::remove_file(at("a/upper")).unwrap();
    symlink(at("b"), at("a/b")).unwrap();
    symlink(at("b"), at("a/b2")).unwrap();
    symlink(at("a/1.png"), at("b/link.png")).unwrap();
    symlink(at("nowhere"), at("b/broken.png")).unwrap();
    symlink(at("nowhere"), at("gone")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("b/pipe.png")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("b/s.png")).unwrap();
    let paths: Vec<String> = folder.read().images.iter().map(|image| folder.relative(&image.path)).collect();
    let b = ["1.png", "broken.png", "link.png"];
    let expected = [
        ["a/1.png"].map(String::from).to_vec(),
        b.map(|n| format!("a/b/{n}")).to_vec(),
        b.map(|n| format!("b/{n}")).to_vec(),
    ];
    assert_eq!(paths, expected.concat());
    let notes = folder.notes();
    assert!(notes.contains("broken link") && notes.contains("gone"), "{notes}");
    assert!(notes.contains("6 pipes, sockets or devices"), "{notes}");
}

#[cfg(unix)]
#[test]
fn a_folder_above_is_entered_once_at_most() {
    use std::os::unix::fs::symlink;
    let folder = Folder::of(&["set/a/1.png", "set/b/1.png", "other/2.png"]);
    symlink(&folder.0, folder.0.join("set/a/up")).unwrap();
    let tree = Tree::read(&folder.0.join("set")).unwrap();
    let images: Vec<String> = tree.images().iter().map(|path| folder.relative(path)).collect();
    assert_eq!(images, ["set/a/1.png", "set/a/up/other/2.png", "set/b/1.png"]);
}

#[test]
fn deep_folders_are_left_out_and_named() {
    let deep = format!("a/{}x.png", "d/".repeat(40));
    let folder = Folder::of(&["a/1.png", &deep]);
    assert_eq!(folder.images(), ["a/1.png train a"]);
    assert!(folder.notes().contains("levels deep"), "{}", folder.notes());
}

#[test]
fn messages_stay_on_one_line() {
    let folder = Folder::of(&["train/cat/1.png", "test/un\nknown/1.png"]);
    assert_eq!(folder.notes().lines().count(), 1, "{}", folder.notes());
    let error = Folder::of(&["c\nat/train/1.png", "c\nat/test/1.png", "d\nog/1.png"]).error();
    assert!(!error.contains('\n') && error.contains(r"d\nog"), "{error}");
}
