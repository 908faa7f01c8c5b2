use std::path::{Path, PathBuf};

use smalti_models::preprocess::FitMode;
use smalti_models::{Image, Preprocess};

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

fn model(name: &str) -> Model {
    Model::open(file(name)).unwrap()
}

const GREY: [u8; 3] = [128; 3];
const RED: [u8; 3] = [230, 20, 20];

/// A grey image with a square of that colour.
fn spot([width, height]: [usize; 2], [left, top]: [usize; 2], side: usize, colour: [u8; 3]) -> Image {
    let inside = |x: usize, y: usize| (left..left + side).contains(&x) && (top..top + side).contains(&y);
    let pixel = |i: usize| if inside(i % width, i / width) { colour } else { GREY };
    Image::new(width, height, 3, (0..width * height).flat_map(pixel).collect()).unwrap()
}

fn map(model: &Model, image: &Image, settings: &Settings) -> Explanation {
    occlusion(&mut model.session().unwrap(), image.view(), settings, &mut |_, _| Ok(())).unwrap()
}

#[test]
fn the_map_peaks_where_the_answer_comes_from() {
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let model = model(name);
        for [left, top] in [[0, 0], [40, 8], [16, 40]] {
            let image = spot([64, 64], [left, top], 24, RED);
            let found = map(&model, &image, &Settings::default());
            assert_eq!((&*model.labels()[found.class], found.runs), ("red", 65), "{name}");
            let peak = found.peak();
            let [x, y] = [peak.x * 64.0 - left as f64, peak.y * 64.0 - top as f64];
            assert!((0.0..24.0).contains(&x) && (0.0..24.0).contains(&y), "{name} {left} {top}: {peak:?}");
            assert!(peak.fall > 0.1 && found.probability > peak.fall, "{name}: {found:?}");
        }
    }
}

#[test]
fn the_map_is_the_mean_of_runs_on_covered_images() {
    // One cell a pixel, by a loop over the patches that cover each.
    let model = model("colours_u8.onnx");
    let image = smalti_models::image::open(&file("green.png"), &Default::default()).unwrap();
    let settings = Settings { class: Some(model.class("blue").unwrap()), grid: 64, bank: None };
    let found = map(&model, &image, &settings);
    assert_eq!((found.class, found.map.cells()), (settings.class.unwrap(), [8, 8]));
    let mut session = model.session().unwrap();
    let input = model.preprocess().unwrap().apply(&image).unwrap();
    let mut probability = |pixels: &[u8]| {
        let (mut ranked, output) = (Vec::new(), session.run_pixels(pixels).unwrap());
        model.rank_into(&output.logits, &mut ranked);
        ranked.iter().find(|(index, _)| *index == found.class).unwrap().1
    };
    let whole = probability(input.data());
    assert_eq!(found.probability, whole);
    let mean = mean_colour(model.preprocess().unwrap());
    for (x, y) in [(0, 0), (7, 3), (4, 4)] {
        let near = |at: i32| (at - 1).max(0)..=(at + 1).min(7);
        let falls: Vec<f32> = near(y)
            .flat_map(|y| near(x).map(move |x| (x, y)))
            .map(|(x, y)| {
                let mut pixels = input.data().to_vec();
                for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
                    if near(x).contains(&(i as i32 % 8)) && near(y).contains(&(i as i32 / 8)) {
                        pixel.copy_from_slice(&mean);
                    }
                }
                whole - probability(&pixels)
            })
            .collect();
        let wanted = falls.iter().sum::<f32>() / falls.len() as f32;
        assert!((found.map.values()[(8 * y + x) as usize] - wanted).abs() < 1e-6, "{x} {y}");
    }
}

#[test]
fn a_place_of_a_cropped_image_is_found_in_the_image() {
    let model = model("colours_u8.onnx");
    let crop = Preprocess { fit: FitMode::Crop, ..model.preprocess().unwrap().clone() };
    let model = model.with_preprocess(crop).unwrap();
    // Of 192 x 64 pixels the model sees those from 64 to 128.
    let image = spot([192, 64], [104, 8], 24, RED);
    let found = map(&model, &image, &Settings::default());
    let peak = found.peak();
    assert!((104.0..128.0).contains(&(192.0 * peak.x)) && (8.0..32.0).contains(&(64.0 * peak.y)), "{peak:?}");
    let drawing = found.over(&image).unwrap();
    assert_eq!((drawing.width(), drawing.height(), drawing.channels()), (480, 160, 3));
    let pixel = |x: usize, y: usize| &drawing.data()[3 * (480 * y + x)..][..3];
    let [bright, dark] = [pixel((480.0 * peak.x) as usize, (160.0 * peak.y) as usize), pixel(200, 140)];
    assert!(bright[0] > dark[0] + 40, "{bright:?} {dark:?}");
    let outside = pixel(80, 80);
    assert!(outside[0] == outside[1] && outside[1] == outside[2] && outside[0] < 60, "{outside:?}");
}

#[test]
fn a_learned_class_has_a_map_of_its_own() {
    let model = model("colours_u8.onnx");
    let mut session = model.session().unwrap();
    let mut say = |image: &Image| session.classify(image).unwrap().output;
    let cyan = [20, 200, 230];
    let learned = [[0, 0], [40, 8], [16, 40]].map(|place| say(&spot([64, 64], place, 24, cyan)));
    let others =
        [GREY, RED, [20, 230, 20], [20, 20, 230]].map(|colour| say(&spot([64, 64], [8, 8], 24, colour)));
    let mut bank = ClassBank::new(&model).unwrap();
    bank.add_negatives(&model, &others, 0.0).unwrap();
    bank.add("cyan", &model, &learned).unwrap();
    let settings = Settings { bank: Some(&bank), ..Settings::default() };
    let found = map(&model, &spot([64, 64], [40, 32], 24, cyan), &settings);
    assert_eq!((found.class, bank.class("cyan").unwrap()), (3, 3));
    let peak = found.peak();
    assert!((40.0..64.0).contains(&(64.0 * peak.x)) && (32.0..56.0).contains(&(64.0 * peak.y)), "{peak:?}");
    assert!(bank.class("mauve").unwrap_err().to_string().contains("`cyan`"));
}

#[test]
fn an_answer_that_depends_on_no_place_lights_none() {
    let model = model("colours_u8.onnx");
    let mean = mean_colour(model.preprocess().unwrap());
    let image = Image::new(9, 9, 3, mean.repeat(81)).unwrap();
    let found = map(&model, &image, &Settings::default());
    assert!(found.map.values().iter().all(|fall| fall.abs() < 1e-6), "{:?}", found.map.values());
    let drawing = found.over(&image).unwrap();
    assert!(drawing.data().chunks_exact(3).all(|pixel| pixel == &drawing.data()[..3]));
}

#[test]
fn drawings_have_a_size_that_can_be_shown() {
    assert_eq!(drawing::drawn([8, 8]), [480, 480]);
    assert_eq!(drawing::drawn([4000, 3000]), [1024, 768]);
    assert_eq!(drawing::drawn([1, 5000]), [1, 1024]);
    assert_eq!(drawing::drawn([640, 480]), [640, 480]);
}

#[test]
fn what_cannot_be_mapped_is_said() {
    let model = model("colours_u8.onnx");
    let (image, mut session) = (spot([8, 8], [0, 0], 4, RED), model.session().unwrap());
    let mut error = |settings: Settings| {
        occlusion(&mut session, image.view(), &settings, &mut |_, _| Ok(())).unwrap_err()
    };
    for settings in [
        Settings { class: Some(3), ..Settings::default() },
        Settings { grid: 0, ..Settings::default() },
        Settings { grid: 65, ..Settings::default() },
    ] {
        assert_eq!(error(settings).exit_code(), 2);
    }
    let mut steps = 0;
    let stopped = occlusion(&mut session, image.view(), &Settings::default(), &mut |done, total| {
        steps += 1;
        assert_eq!(total, 65);
        if done == 5 { Err(Error::GateFailed("enough".into())) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::GateFailed(_))) && steps == 6);
    let error = model.class("mauve").unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("`red`, `green`, `blue`"), "{error}");
}
