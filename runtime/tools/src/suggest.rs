//! "Did you mean": the nearest name that exists to one that does not, and what to do where the file system says no.

use std::io::ErrorKind;
use std::path::Path;

/// A folder with more names than this is not searched for a similar one.
const MAX_NAMES: usize = 10_000;

/// The most similar of `names`, if one is similar enough to be meant: no more than a third of the letters differ, or it
/// begins with all of `word`. Upper and lower case are alike.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let distance = strsim::osa_distance(&word, &name);
        let is_near = 3 * distance <= letters.max(3);
        (is_near || (letters >= 3 && name.starts_with(&word))).then_some(distance)
    };
    let near = names.into_iter().filter_map(|name| Some((distance(name)?, name)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// `; did you mean ...?` to end a message with; nothing where no name is similar.
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// What to do about a file system that says no.
pub fn advice(path: &Path, cause: &std::io::Error) -> Option<String> {
    match cause.kind() {
        ErrorKind::NotFound => Some(missing(path)),
        ErrorKind::PermissionDenied => {
            Some("its permissions do not let you: check its owner, or name another place".into())
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("make room, or name another place".into()),
        ErrorKind::ReadOnlyFilesystem => Some("name a place that can be written to".into()),
        ErrorKind::NotADirectory => Some("a part of the path is a file: name a folder".into()),
        ErrorKind::AlreadyExists => Some("something of that name is there: name a folder that is new".into()),
        ErrorKind::IsADirectory => Some("it is a folder: name a file".into()),
        ErrorKind::AddrInUse => {
            Some("another program has this port: stop it, or name another port (0 for a free one)".into())
        }
        ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address: 127.0.0.1 always works".into())
        }
        _ => None,
    }
}

/// What to do about a path that is not there: the similar name next to it, or how far the path is right.
pub fn missing(path: &Path) -> String {
    if let Some(mounted) = path.to_str().and_then(mounted) {
        return format!("this is a Windows path; in WSL the same place is `{mounted}`");
    }
    let is_there = |folder: &&Path| folder.as_os_str().is_empty() || folder.exists();
    let folder = path.ancestors().skip(1).find(is_there).unwrap_or(Path::new(""));
    let mut rest = path.strip_prefix(folder).unwrap_or(path).components();
    let Some(part) = rest.next() else { return "check the path".into() };
    let (part, rest) = (part.as_os_str().to_string_lossy(), rest.as_path());
    let is_here = folder.as_os_str().is_empty();
    let names: Vec<String> = std::fs::read_dir(if is_here { Path::new(".") } else { folder })
        .into_iter()
        .flatten()
        .take(MAX_NAMES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    match nearest(&part, names.iter().map(String::as_str)) {
        Some(name) => {
            let (meant, whole) = (folder.join(name), folder.join(name).join(rest));
            let meant = if !rest.as_os_str().is_empty() && whole.exists() { whole } else { meant };
            format!("did you mean `{}`?", meant.display())
        }
        None if is_here => format!("this folder has no `{part}`: check the path"),
        None => format!("{} has no `{part}`: check the path", folder.display()),
    }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match text.chars().all(is_plain) && !text.is_empty() && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Where Windows' drives are in its subsystem for Linux: `C:\Users\me` is `/mnt/c/Users/me`.
fn mounted(path: &str) -> Option<String> {
    let (drive, rest) = path.split_once(":\\")?;
    let is_drive = drive.len() == 1 && drive.chars().all(|c| c.is_ascii_alphabetic());
    (cfg!(not(windows)) && is_drive)
        .then(|| format!("/mnt/{}/{}", drive.to_ascii_lowercase(), rest.replace('\\', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_found_and_others_are_not() {
        let names = ["photos-nano", "scratch", "auto"];
        for (word, meant) in [
            ("photo-nano", Some("photos-nano")),
            ("Photos-Nano", Some("photos-nano")),
            ("photos", Some("photos-nano")),
            ("scrach", Some("scratch")),
            ("atuo", Some("auto")),
            ("resnet50", None),
            ("", None),
            ("sc", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
        assert_eq!(did_you_mean("scrach", names), "; did you mean `scratch`?");
        assert_eq!(did_you_mean("vit", names), "");
    }

    #[test]
    fn of_a_wrong_path_the_wrong_part_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("runs/photos")).unwrap();
        let said = |path: &str| missing(&root.path().join(path));
        let shown = |path: &str| root.path().join(path).display().to_string();
        assert_eq!(said("runs/phtos"), format!("did you mean `{}`?", shown("runs/photos")));
        assert_eq!(said("rnus/photos"), format!("did you mean `{}`?", shown("runs/photos")));
        assert_eq!(said("rnus/nothing"), format!("did you mean `{}`?", shown("runs")));
        assert_eq!(said("runs/x/y"), format!("{} has no `x`: check the path", shown("runs")));
        assert!(missing(Path::new("no-such-name-anywhere")).contains("this folder"));
    }

    #[test]
    fn paths_are_quoted_where_a_shell_would_change_them() {
        for (path, expected) in [
            ("runs/a-1.csv", "runs/a-1.csv"),
            ("my photos", "'my photos'"),
            ("it's", r"'it'\''s'"),
            ("$(x);*", "'$(x);*'"),
            ("-x", "'-x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }

    #[cfg(not(windows))]
    #[test]
    fn a_windows_path_is_known() {
        assert!(missing(Path::new(r"C:\Users\me\photos")).contains("`/mnt/c/Users/me/photos`"));
    }
}
