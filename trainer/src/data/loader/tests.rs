//! Loaders as trainings use them.

use sha2::{Digest, Sha256};
use smalti_models::Preprocess;
use smalti_models::image::Image;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;

use super::*;
use crate::data::augment::Policy;
use crate::data::{Augment, CropKind, Split, View};

fn preprocess(img_size: usize, channels: usize) -> Preprocess {
    let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
    Preprocess {
        img_size,
        channels,
        fit: FitMode::Crop,
        resize: None,
        interpolation: Interpolation::Bilinear,
        mean,
        std,
    }
}

/// `n` grey images; each pixel of image `i` is `i`.
fn numbered(n: usize) -> Dataset {
    let image = |i: usize| (Image::new(8, 8, 1, vec![i as u8; 64]).unwrap(), Some((i % 2) as u32));
    Dataset::from_images(vec!["even".into(), "odd".into()], (0..n).map(image).collect()).unwrap()
}

pub(super) fn training(n: usize, threads: usize) -> Loader {
    let augment = Augment {
        crop: CropKind::random_resized(0.3),
        flip: true,
        jitter: 0.4,
        erasing: 0.3,
        ..Augment::default()
    };
    let settings = LoaderSettings { threads, ..LoaderSettings::training(4, preprocess(8, 1), augment, 7) };
    Loader::new(numbered(n), settings).unwrap()
}

fn all(epoch: Stream) -> Vec<Batch> {
    epoch.collect::<Result<_>>().unwrap()
}

#[test]
fn every_image_comes_once_and_threads_change_nothing() {
    let plain = all(training(22, 0).epoch(3, 0));
    assert_eq!(plain.len(), 5);
    let mut ids: Vec<u32> = plain.iter().flat_map(|b| b.ids.clone()).collect();
    assert!(plain.iter().all(|b| b.labels.iter().zip(&b.ids).all(|(l, id)| *l == Some(id % 2))));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "no image twice");
    for threads in [1, 2, 5] {
        let loader = training(22, threads);
        assert_eq!(all(loader.epoch(3, 0)), plain, "{threads} threads");
        assert_eq!(all(loader.epoch(3, 2)), plain[2..], "begun in the middle");
        assert_ne!(all(loader.epoch(4, 0))[0].ids, plain[0].ids);
    }
    let other = LoaderSettings { seed: 8, ..training(22, 0).settings().clone() };
    assert_ne!(all(Loader::new(numbered(22), other).unwrap().epoch(3, 0)), plain);
}

#[test]
fn the_cache_changes_nothing() {
    let settings = training(22, 0).settings().clone();
    let images = (0..22).map(|i| {
        let pixels = (0..40 * 30).map(|p| (p * (i + 1) % 251) as u8).collect();
        (Image::new(40, 30, 1, pixels).unwrap(), None)
    });
    let data = Dataset::from_images(vec![], images.collect()).unwrap();
    let epochs = |bytes| {
        let loader =
            Loader::new(data.clone(), LoaderSettings { cache: CacheBudget::new(bytes), ..settings.clone() })
                .unwrap();
        [all(loader.epoch(0, 0)), all(loader.epoch(0, 0))]
    };
    let [first, again] = epochs(1 << 20);
    assert_eq!(first, again);
    assert_eq!([first, again], epochs(1000));
}

#[test]
fn measuring_goes_in_order_with_a_last_small_batch() {
    let settings = LoaderSettings { threads: 2, ..LoaderSettings::new(4, preprocess(8, 1)) };
    let loader = Loader::new(numbered(10), settings).unwrap();
    let batches = all(loader.epoch(0, 0));
    assert_eq!((loader.batches_per_epoch(), batches.len()), (3, 3));
    assert_eq!(batches.iter().flat_map(|b| b.ids.clone()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!((batches[2].len(), batches[2].pixels().len()), (2, 128));
    assert!((batches[1].pixels()[0] - (4.0 / 255.0 - 0.5) / 0.25).abs() < 1e-6);
}

#[test]
fn a_small_set_is_repeated_in_new_orders() {
    let settings = LoaderSettings { repeat: 3, ..training(4, 1).settings().clone() };
    let loader = Loader::new(numbered(4), settings).unwrap();
    let batches = all(loader.epoch(1, 0));
    assert_eq!(batches.len(), 3);
    for batch in &batches {
        let mut ids = batch.ids.clone();
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3]);
    }
    assert_ne!(batches[0].views, batches[1].views);
}

#[test]
fn unreachable_settings_are_refused() {
    let refused = |change: &dyn Fn(&mut LoaderSettings)| {
        let mut settings = training(22, 0).settings().clone();
        change(&mut settings);
        Loader::new(numbered(22), settings).map(|_| ()).unwrap_err().exit_code()
    };
    assert_eq!(refused(&|s| s.batch_size = 0), 2);
    assert_eq!(refused(&|s| s.max_bad = 2.0), 2);
    assert_eq!(refused(&|s| s.views[0].augment.erasing = -1.0), 2);
    assert_eq!(refused(&|s| s.views[0].augment.crop = CropKind::Padded(9)), 2);
    assert_eq!(refused(&|s| s.batch_size = 23), 5);
}

/// A folder of `n` images of which those numbered in `bad` are text.
fn folder(n: usize, bad: &[usize]) -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..n {
        let path = dir.path().join(format!("{i:03}.png"));
        if bad.contains(&i) {
            std::fs::write(path, "no image").unwrap();
        } else {
            image::GrayImage::from_pixel(8, 8, image::Luma([i as u8])).save(path).unwrap();
        }
    }
    let data = Dataset::open(dir.path(), Split::Train).unwrap();
    (dir, data)
}

#[test]
fn the_next_good_image_takes_a_bad_ones_place() {
    let (_dir, data) = folder(40, &[3, 4]);
    for threads in [0, 2] {
        let settings =
            LoaderSettings { threads, on_bad: OnBad::Replace, ..LoaderSettings::new(4, preprocess(8, 1)) };
        let loader = Loader::new(data.clone(), settings.clone()).unwrap();
        let ids: Vec<Vec<u32>> = all(loader.epoch(0, 0)).into_iter().map(|b| b.ids).collect();
        assert_eq!(ids[..2], [vec![0, 1, 2, 5], vec![5, 5, 6, 7]]);
        assert_eq!(loader.bad().len(), 2);
        assert!(loader.bad()[0].contains("003.png"), "{:?}", loader.bad());
        let skip = LoaderSettings { on_bad: OnBad::Skip, ..settings };
        let batches = all(Loader::new(data.clone(), skip).unwrap().epoch(0, 0));
        assert_eq!((&batches[0].ids[..], batches[0].pixels().len()), (&[0, 1, 2][..], 3 * 64));
    }
}

#[test]
fn too_many_bad_images_end_the_epoch() {
    for (n, bad, max_bad, ends) in [
        (20, &[1][..], 0.01, false),
        (20, &[1], 0.0, true),
        (20, &[1, 2], 0.05, true),
        (40, &[1, 2], 0.05, false),
        (2, &[0, 1], 1.0, true),
    ] {
        let (_dir, data) = folder(n, bad);
        for threads in [0, 3] {
            let settings = LoaderSettings { threads, max_bad, ..LoaderSettings::new(3, preprocess(8, 1)) };
            let loader = Loader::new(data.clone(), settings).unwrap();
            let outcome: Result<Vec<Batch>> = loader.epoch(0, 0).collect();
            assert_eq!(outcome.is_err(), ends, "{n} {bad:?} {max_bad}");
            if let Err(error) = outcome {
                assert_eq!(error.exit_code(), 5);
                assert!(error.to_string().contains(".png"), "{error}");
            }
        }
    }
}

/// Published runs were made with these bits.
#[test]
fn batches_keep_their_bits() {
    for (repeat, expected) in [(1, "9ff03f160667cf58"), (3, "31dda05352138c3e")] {
        let settings = LoaderSettings { repeat, ..training(22, 2).settings().clone() };
        let loader = Loader::new(numbered(22), settings).unwrap();
        let mut hash = Sha256::new();
        for batch in (0..3).flat_map(|epoch| all(loader.epoch(epoch, 0))) {
            batch.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            batch.pixels().iter().for_each(|v| hash.update(v.to_le_bytes()));
        }
        let found = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_stream_is_one_epoch_after_the_other() {
    let expected: Vec<Batch> = (0..6).flat_map(|epoch| all(training(22, 0).epoch(epoch, 0))).collect();
    assert_eq!(expected.iter().map(|b| (b.epoch, b.index)).nth(13), Some((2, 3)));
    for threads in [0, 1, 2, 7] {
        let loader = training(22, threads);
        for first in [0, 3, 5, 14] {
            let wanted = &expected[first as usize..];
            let found: Vec<Batch> = loader.stream(first).take(wanted.len()).collect::<Result<_>>().unwrap();
            assert_eq!(found, wanted, "{threads} threads, from {first}");
        }
    }
    // Epochs of one batch: threads are several epochs ahead.
    let alone = |threads| Loader::new(numbered(4), training(4, threads).settings().clone()).unwrap();
    let batches = |threads| alone(threads).stream(0).take(9).collect::<Result<Vec<Batch>>>().unwrap();
    assert_eq!(batches(0).iter().map(|b| b.epoch).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    assert_eq!(batches(5), batches(0));
}

/// Views of several sizes, with equal and with different bases.
fn views() -> Vec<View> {
    let view = |augment, size| View::new(augment, preprocess(size, 1));
    let weak = Augment { crop: CropKind::Padded(1), flip: true, ..Augment::default() };
    let strong = Augment { policy: Policy::RAND, erasing: 0.5, ..weak };
    let crops = Augment { crop: CropKind::random_resized(0.3), ..Augment::default() };
    vec![view(weak, 8), view(strong, 8), view(crops, 8), view(crops, 6), view(weak, 12)]
}

/// Images of several sizes.
fn varied(n: usize) -> Dataset {
    let image = |i: usize| {
        let (width, height) = (20 + i % 7, 40 - i % 11);
        let pixels = (0..width * height).map(|p| (p * (i + 3) % 251) as u8).collect();
        (Image::new(width, height, 1, pixels).unwrap(), Some(0))
    };
    Dataset::from_images(vec!["only".into()], (0..n).map(image).collect()).unwrap()
}

#[test]
fn views_do_not_depend_on_each_other() {
    let settings = LoaderSettings { views: views(), ..training(22, 2).settings().clone() };
    let batches = all(Loader::new(varied(22), settings.clone()).unwrap().epoch(1, 0));
    for (batch, v) in batches.iter().flat_map(|batch| (0..5).map(move |v| (batch, v))) {
        let size = [8, 8, 8, 6, 12][v];
        assert_eq!(batch.views[v].len(), 4 * size * size);
        assert!((0..v).all(|other| batch.views[other] != batch.views[v]));
    }
    // The first view alone, and any view in the company of others.
    let first = LoaderSettings { views: views()[..1].to_vec(), ..settings.clone() };
    let alone = all(Loader::new(varied(22), first).unwrap().epoch(1, 0));
    let mut changed = views();
    changed[1] = changed[4].clone();
    let changed = LoaderSettings { views: changed, ..settings };
    let others = all(Loader::new(varied(22), changed).unwrap().epoch(1, 0));
    for ((batch, alone), others) in batches.iter().zip(&alone).zip(&others) {
        assert_eq!((batch.pixels(), &batch.ids), (alone.pixels(), &alone.ids));
        assert_eq!(batch.views[2..], others.views[2..]);
        assert_ne!(batch.views[1], others.views[1]);
    }
}

#[test]
fn equal_views_differ_in_what_they_draw_alone() {
    let view = View::new(Augment::default(), preprocess(8, 1));
    let drawn = View { augment: Augment { flip: true, ..Augment::default() }, ..view.clone() };
    let batches = |views| {
        let settings = LoaderSettings { views, ..training(22, 1).settings().clone() };
        all(Loader::new(varied(22), settings).unwrap().epoch(0, 0))
    };
    assert!(batches(vec![view.clone(), view]).iter().all(|batch| batch.views[0] == batch.views[1]));
    assert!(batches(vec![drawn.clone(), drawn]).iter().any(|batch| batch.views[0] != batch.views[1]));
}

#[test]
fn all_loaders_share_one_cache_and_return_their_part() {
    let budget = CacheBudget::new(1 << 20);
    let loader = |views: Vec<View>| {
        let settings = LoaderSettings { views, cache: budget.clone(), ..training(22, 2).settings().clone() };
        Loader::new(varied(22), settings).unwrap()
    };
    let (first, second) = (loader(views()), loader(views()[..1].to_vec()));
    all(first.epoch(0, 0));
    let after_first = budget.left();
    // Whole images for both resized crops, and two sizes for the other views.
    assert!((1 << 20) - after_first >= 20 * (2 * 16 * 16 + 8 * 8 + 12 * 12));
    all(second.epoch(0, 0));
    let after_both = budget.left();
    assert!((1600..6400).contains(&(after_first - after_both)), "20 images of 8 x 8");
    all(first.epoch(0, 0));
    assert_eq!(budget.left(), after_both, "all were kept before");
    drop(first);
    assert_eq!(budget.left(), (1 << 20) - (after_first - after_both));
    drop(second);
    assert_eq!(budget.left(), 1 << 20);
    // Raw images that stay as they are lie in memory already.
    let settings = LoaderSettings { cache: budget.clone(), ..training(22, 2).settings().clone() };
    all(Loader::new(numbered(22), settings).unwrap().epoch(0, 0));
    assert_eq!(budget.left(), 1 << 20);
}
