//! Classifies images on as many threads as there are images: `classify MODEL.onnx IMAGE...`

use std::process::ExitCode;
use std::thread;

use smalti_runtime::{Error, Model, images};

fn classify(model: &Model, image: &str) -> Result<String, Error> {
    let prediction = model.session()?.classify(&images::open_for(image, model)?)?;
    let best = prediction.best().map(|best| format!("{} {:.3}", best.label, best.probability));
    Ok(best.unwrap_or_default())
}

fn run(path: &str, paths: &[String]) -> Result<(), Error> {
    let model = Model::open(path)?;
    thread::scope(|scope| {
        let answers: Vec<_> =
            paths.iter().map(|path| (path, scope.spawn(|| classify(&model, path)))).collect();
        for (path, answer) in answers {
            match answer.join() {
                Ok(answer) => println!("{path}: {}", answer?),
                Err(_) => println!("{path}: the thread panicked"),
            }
        }
        Ok(())
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, images @ ..] = &arguments[..] else {
        eprintln!("usage: classify MODEL.onnx IMAGE...");
        return ExitCode::from(2);
    };
    match run(model, images) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
