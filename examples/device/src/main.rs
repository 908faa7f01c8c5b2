//! Classifies an image: `device MODEL.onnx IMAGE`.

use std::process::ExitCode;

use smalti_runtime::{Error, Model, images};

fn classify(model: &str, image: &str) -> Result<(), Error> {
    let model = Model::open(model)?;
    let prediction = model.session()?.classify(&images::open_for(image, &model)?)?;
    for ranked in &prediction.ranked {
        println!("{:5.1} %  {}", 100.0 * ranked.probability, ranked.label);
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image] = &arguments[..] else {
        eprintln!("usage: device MODEL.onnx IMAGE");
        return ExitCode::from(2);
    };
    match classify(model, image) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
