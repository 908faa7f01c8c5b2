//! From what was typed to what is done: settings that are complete and checked.
//!
//! Each plan fills what its arguments left open, so that the arguments afterwards say everything: saved as the run's
//! `config.toml` they lead to the same plan again. [`DEFAULTS`](defaults) stand in one table.

pub(crate) mod augment;
pub(crate) mod defaults;
pub(crate) mod distil;
pub(crate) mod finetune;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod optim;
pub(crate) mod pretrain;
pub(crate) mod size;
pub(crate) mod teacher;

use std::path::{Path, PathBuf};

use smalti_models::starts::STARTS;
use smalti_tools::suggest::{did_you_mean, nearest};
use smalti_trainer::data::{CacheBudget, Dataset, Split, Splits};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result};

use crate::args::MachineArgs;

/// What must be given.
pub(crate) fn required<T: Clone>(value: &Option<T>, flag: &str, what: &str) -> Result<T> {
    value.clone().ok_or_else(|| Error::Usage(format!("{flag} is missing: expected {what}")))
}

/// A value that was given, else the default, which is then as good as given.
pub(crate) fn fill<T: Clone>(value: &mut Option<T>, default: T) -> T {
    value.get_or_insert(default).clone()
}

/// The folder of image files that must be given: a table of labels names files in it.
pub(crate) fn folder(path: &Option<PathBuf>) -> Result<PathBuf> {
    let path = required(path, "DIR", "a folder of images")?;
    match path.is_file() {
        true => Err(Error::data(path.display().to_string(), "a file: expected a folder of image files")),
        false => Ok(path),
    }
}

/// `5%` or `0.05`.
pub(crate) fn share(flag: &str, text: &str) -> Result<f64> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().map(|number| number / scale).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| Error::Usage(format!("{flag} is `{text}`: expected a share, 0% to 100%")))
}

/// A size in bytes: `0`, `512MiB`, `1.5GB`.
pub(crate) fn bytes(flag: &str, text: &str) -> Result<usize> {
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("b", 1.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("tb", 1e12),
        ("kib", 1024.0),
        ("mib", 1048576.0),
        ("gib", 1073741824.0),
        ("tib", 1099511627776.0),
    ];
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..end].trim().parse::<f64>().ok(), text[end..].trim().to_ascii_lowercase());
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| scale);
    let bytes = number.zip(scale).map(|(number, scale)| number * scale);
    let bytes = bytes.filter(|bytes| (0.0..=1e18).contains(bytes)).map(|bytes| bytes as usize);
    bytes
        .ok_or_else(|| Error::Usage(format!("{flag} is `{text}`: expected a size such as 0, 512MiB or 2GiB")))
}

/// The one of `all` that has this name.
pub(crate) fn named<T: Copy>(flag: &str, text: &str, all: &[(&str, T)]) -> Result<T> {
    let found = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let hint = did_you_mean(text, names.iter().copied());
        Error::Usage(format!("{flag} is `{text}`: expected {}{hint}", names.join(" or ")))
    })
}

/// Refuses a network that is not there where a name is nearly that of a start, or one of `others`.
pub(crate) fn check_network(path: &Path, others: &[&str]) -> Result<()> {
    let name = path.to_str().unwrap_or_default();
    let names = || STARTS.iter().map(|start| start.name).chain(others.iter().copied());
    match nearest(name, names()).filter(|meant| *meant != name && !path.exists()) {
        Some(meant) => {
            let all: Vec<&str> = names().collect();
            Err(Error::Usage(format!(
                "`{name}` is neither a file nor a run, nor one of {}; did you mean `{meant}`?",
                all.join(", ")
            )))
        }
        None => Ok(()),
    }
}

/// Threads to compute with.
pub(crate) fn threads(given: Option<usize>) -> Result<usize> {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    match given.unwrap_or_else(all) {
        threads @ 1..=1024 => Ok(threads),
        threads => Err(Error::Usage(format!("threads is {threads}: expected 1 to 1024"))),
    }
}

/// What does not change results.
pub(crate) fn exec(args: &MachineArgs) -> Result<ExecConfig> {
    let loader_threads = args.loader_threads.unwrap_or(1);
    if loader_threads > 1024 {
        return Err(Error::Usage(format!("loader-threads is {loader_threads}: expected 0 to 1024")));
    }
    let max_bad = args.max_bad.as_deref().map_or(Ok(defaults::MAX_BAD), |text| share("max-bad", text))?;
    let cache = args.cache.as_deref().map(|text| bytes("cache", text)).transpose()?;
    let cache = cache.map_or_else(CacheBudget::default, CacheBudget::new);
    Ok(ExecConfig { loader_threads, cache, max_bad, ..ExecConfig::new(threads(args.threads)?) })
}

/// The labelled images to measure on, and which split they are: the one that was asked for, else the first of test and
/// val that has labels, else everything.
pub(crate) fn held_out(data: &Splits, split: Option<&str>) -> Result<(Dataset, Split)> {
    let held_out: Vec<Split> =
        [Split::Test, Split::Val].into_iter().filter(|split| data.has(*split)).collect();
    let candidates = match split {
        Some(name) => vec![self::split(name)?],
        None if held_out.is_empty() => vec![Split::All],
        None => held_out,
    };
    let mut first = None;
    for split in candidates {
        let images = data.dataset(split)?;
        let labelled = labelled(&images, split, "not measured on");
        if !labelled.is_empty() {
            return Ok((labelled, split));
        }
        first.get_or_insert((images, split));
    }
    let Some((images, split)) = first else { return Err(Error::Usage("no split to measure on".into())) };
    if images.classes().is_empty() {
        images.labels()?;
    }
    let problem =
        format!("no image of the {split} split has a label to measure by: name another split with --split");
    Err(Error::data(images.root(), problem))
}

/// The images of a split that have labels; the user is told of the others, which are `left_out`.
pub(crate) fn labelled(images: &Dataset, split: Split, left_out: &str) -> Dataset {
    let labelled = images.labelled();
    let (all, without) = (images.len(), images.len() - labelled.len());
    let place = match split {
        Split::All => images.root(),
        split => format!("the {split} split of {}", images.root()),
    };
    if without == all {
        log::warn!("{place} holds {all} images without labels: {left_out}");
    } else if without > 0 {
        log::warn!("{without} of {all} images of {place} have no label: {left_out}");
    }
    labelled
}

/// A split by its name.
pub(crate) fn split(name: &str) -> Result<Split> {
    let all = [Split::Train, Split::Val, Split::Test, Split::All].map(|split| (split.to_string(), split));
    named("split", name, &all.each_ref().map(|(name, split)| (name.as_str(), *split)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_both_ways() {
        assert_eq!(share("max-bad", "5%").unwrap(), 0.05);
        assert_eq!(share("max-bad", "0.05").unwrap(), 0.05);
        for wrong in ["", "five", "-1%", "101%", "nan", "%"] {
            assert_eq!(share("max-bad", wrong).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes =
            [("0", 0), ("512MiB", 512 << 20), ("2 gib", 2 << 30), ("1.5GB", 1_500_000_000), ("9B", 9)];
        for (text, size) in sizes {
            assert_eq!(bytes("cache", text).unwrap(), size);
        }
        for wrong in ["", "MiB", "-1", "1e400", "nan", "inf", "2Gi", "1 2", "½GiB", "99999999999TiB"] {
            assert_eq!(bytes("cache", wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn machines_are_checked() {
        assert!(threads(Some(0)).is_err() && threads(None).unwrap() >= 1);
        let args = MachineArgs {
            threads: Some(3),
            max_bad: Some("0%".into()),
            loader_threads: Some(0),
            cache: Some("3KiB".into()),
        };
        let found = exec(&args).unwrap();
        assert_eq!((found.threads, found.loader_threads, found.max_bad), (3, 0, 0.0));
        assert_eq!(found.cache.left(), 3072);
    }
}
