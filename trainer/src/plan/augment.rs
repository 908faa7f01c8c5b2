//! How images are changed, from flags.

use smalti_trainer::data::augment::{Op, OpSet, Policy};
use smalti_trainer::data::{Augment, CropKind};
use smalti_trainer::{Error, Result};

use super::defaults::Defaults;
use super::fill;
use crate::args::training::ImageArgs;

/// The changes to each image; fills what the arguments left open.
pub(crate) fn augment(args: &mut ImageArgs, img_size: usize, defaults: &Defaults) -> Result<Augment> {
    let crop = match &args.crop {
        Some(text) => read_crop(text, img_size, defaults)?,
        None => defaults.crop(img_size),
    };
    args.crop = Some(crop.to_string());
    let policy = read_policy(args.augment.as_deref().unwrap_or("none"))?;
    args.augment = Some(policy.to_string());
    let skip = read_ops(args.augment_skip.as_deref().unwrap_or_default())?;
    if policy.is_none() && !skip.is_empty() {
        return Err(Error::Usage("augment-skip is of no use without --augment trivial or rand".into()));
    }
    // As in timm: the policy has operations for brightness, contrast and saturation of its own.
    let jitter = if policy.is_none() { defaults.jitter } else { 0.0 };
    let augment = Augment {
        crop,
        flip: fill(&mut args.flip, defaults.flip),
        policy,
        skip,
        jitter: fill(&mut args.jitter, jitter) as f32,
        erasing: fill(&mut args.erasing, defaults.erasing) as f32,
    };
    augment.check(img_size)?;
    Ok(augment)
}

/// `none`, `padded`, `padded:4`, `resized`, `resized:0.2`.
fn read_crop(text: &str, img_size: usize, defaults: &Defaults) -> Result<CropKind> {
    let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
    let crop = match (kind, number) {
        ("none", None) => Some(CropKind::None),
        ("padded", None) => Some(CropKind::Padded(img_size / 8)),
        ("padded", Some(pixels)) => pixels.parse().ok().map(CropKind::Padded),
        ("resized", None) => Some(CropKind::random_resized(defaults.least)),
        ("resized", Some(least)) => least.parse().ok().map(CropKind::random_resized),
        _ => None,
    };
    crop.ok_or_else(|| {
        Error::Usage(format!("crop is `{text}`: expected none, padded[:PIXELS] or resized[:LEAST SHARE]"))
    })
}

/// `none`, `trivial`, `rand`, `rand:2,9`.
fn read_policy(text: &str) -> Result<Policy> {
    let (kind, numbers) = text.split_once(':').map_or((text, None), |(kind, numbers)| (kind, Some(numbers)));
    let policy = match (kind, numbers) {
        ("none", None) => Some(Policy::None),
        ("trivial", None) => Some(Policy::Trivial),
        ("rand", None) => Some(Policy::RAND),
        ("rand", Some(numbers)) => numbers.split_once(',').and_then(|(ops, magnitude)| {
            Some(Policy::Rand { ops: ops.trim().parse().ok()?, magnitude: magnitude.trim().parse().ok()? })
        }),
        _ => None,
    };
    policy
        .ok_or_else(|| Error::Usage(format!("augment is `{text}`: expected none, trivial, rand or rand:N,M")))
}

/// Operations by their names, or all of a kind.
fn read_ops(names: &[String]) -> Result<OpSet> {
    let mut ops = Vec::new();
    for name in names {
        let named = |op: &Op| match name.as_str() {
            "geometric" => op.is_geometric(),
            "photometric" => !op.is_geometric() && *op != Op::Identity,
            name => op.name() == name,
        };
        let before = ops.len();
        ops.extend(Op::ALL.into_iter().filter(named));
        if ops.len() == before {
            let known: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
            let known = known.join(", ");
            return Err(Error::Usage(format!(
                "augment-skip has `{name}`: expected geometric, photometric or some of {known}"
            )));
        }
    }
    Ok(ops.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::defaults::{FINETUNE, PRETRAIN};

    #[test]
    fn crops_are_read_as_they_are_written() {
        for text in ["none", "padded:4", "resized:0.25"] {
            assert_eq!(read_crop(text, 32, &PRETRAIN).unwrap().to_string(), text);
        }
        assert_eq!(read_crop("padded", 32, &PRETRAIN).unwrap(), CropKind::Padded(4));
        assert_eq!(PRETRAIN.crop(32), CropKind::Padded(4));
        assert_eq!(FINETUNE.crop(96).to_string(), "resized:0.4");
        for text in ["", "none:1", "padded:x", "resized:", "centre"] {
            assert!(read_crop(text, 32, &PRETRAIN).is_err(), "{text}");
        }
        let mut args = ImageArgs { crop: Some("resized:7".into()), ..ImageArgs::default() };
        assert!(augment(&mut args, 32, &PRETRAIN).is_err());
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["none", "trivial", "rand:2,9", "rand:3,15"] {
            assert_eq!(read_policy(text).unwrap().to_string(), text);
        }
        assert_eq!(read_policy("rand").unwrap(), Policy::Rand { ops: 2, magnitude: 9 });
        for text in
            ["", "auto", "trivial:1", "rand:", "rand:2", "rand:2,x", "rand:-1,9", "rand:2,9,1", "rand:2,999"]
        {
            assert_eq!(read_policy(text).unwrap_err().exit_code(), 2, "{text}");
        }
        let mut args = ImageArgs { augment: Some("rand:2,31".into()), ..ImageArgs::default() };
        assert!(augment(&mut args, 32, &FINETUNE).is_err());
    }

    #[test]
    fn a_policy_takes_the_place_of_the_default_jitter() {
        let plan = |args: &mut ImageArgs| augment(args, 32, &FINETUNE).unwrap();
        let mut args = ImageArgs { augment: Some("trivial".into()), ..ImageArgs::default() };
        assert_eq!((plan(&mut args).policy, plan(&mut args).jitter), (Policy::Trivial, 0.0));
        let mut args = ImageArgs { jitter: Some(0.5), ..args };
        assert_eq!(plan(&mut args).jitter, 0.5);
        assert_eq!(plan(&mut ImageArgs::default()).jitter, 0.2);
    }

    #[test]
    fn operations_are_left_out_by_name_and_kind() {
        let skip = |names: &[&str]| read_ops(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(skip(&["geometric"]).unwrap().iter().count(), 5);
        assert_eq!(skip(&["photometric"]).unwrap().iter().count(), 9);
        assert_eq!(skip(&["rotate", "color"]).unwrap().iter().collect::<Vec<_>>(), [Op::Rotate, Op::Color]);
        assert!(skip(&["rotate", "turn"]).unwrap_err().to_string().contains("`turn`"));
        let args = ImageArgs { augment_skip: Some(vec!["rotate".into()]), ..ImageArgs::default() };
        assert!(augment(&mut args.clone(), 32, &PRETRAIN).is_err(), "nothing to leave out of");
        let mut args = ImageArgs { augment: Some("trivial".into()), ..args };
        assert!(augment(&mut args, 32, &PRETRAIN).unwrap().skip.contains(Op::Rotate));
    }
}
