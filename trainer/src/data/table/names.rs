//! What columns of tables are called.

use smalti_models::folder::Split;

/// Names of columns of paths, the surest first.
pub(super) const PATHS: [&str; 33] = [
    "path",
    "file_path",
    "filepath",
    "filepaths",
    "image_path",
    "img_path",
    "relative_path",
    "file",
    "files",
    "file_name",
    "filename",
    "filenames",
    "fname",
    "image_file",
    "image_filename",
    "img_file",
    "image_name",
    "img_name",
    "image",
    "images",
    "img",
    "imgs",
    "photo",
    "picture",
    "image_id",
    "imageid",
    "image_index",
    "img_id",
    "isic_id",
    "photo_id",
    "file_id",
    "uri",
    "url",
];

/// Names of columns that may be paths, where none has a surer name.
pub(super) const WEAK_PATHS: [&str; 3] = ["name", "id", "uid"];

/// Names of columns of labels, the surest first: names of classes come before their numbers.
pub(super) const LABELS: [&str; 45] = [
    "label",
    "labels",
    "class_name",
    "classname",
    "label_name",
    "class_label",
    "class",
    "classes",
    "category_name",
    "category",
    "categories",
    "target_name",
    "target",
    "targets",
    "breed",
    "species",
    "variety",
    "cultivar",
    "diagnosis",
    "dx",
    "disease",
    "emotion",
    "expression",
    "genre",
    "style",
    "type",
    "kind",
    "tag",
    "tags",
    "ground_truth",
    "truth",
    "gt",
    "annotation",
    "y",
    "finding_labels",
    "grade",
    "level",
    "class_id",
    "classid",
    "class_index",
    "label_id",
    "labelid",
    "category_id",
    "target_id",
    "level_id",
];

/// Names of columns of splits, where an entry that is no split is an error.
pub(super) const SPLITS: [&str; 3] = ["split", "subset", "partition"];

/// Names of columns that are splits if every entry is one.
pub(super) const WEAK_SPLITS: [&str; 6] = ["set", "part", "data_set", "dataset", "phase", "usage"];

/// Names of columns that say of each row whether it belongs to a split.
pub(super) const FLAGS: [(&str, Split); 4] = [
    ("is_valid", Split::Val),
    ("is_val", Split::Val),
    ("is_validation", Split::Val),
    ("is_test", Split::Test),
];

/// Names of columns of folders that paths begin in.
pub(super) const FOLDERS: [&str; 7] =
    ["folder", "folders", "dir", "directory", "subfolder", "sub_folder", "folder_name"];

/// A name in lower case with `_` between its words: `Image Index` is `image_index`.
pub(super) fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() {
            plain.extend(c.to_lowercase());
        } else if !plain.is_empty() && !plain.ends_with('_') {
            plain.push('_');
        }
    }
    plain.trim_end_matches('_').to_owned()
}
