//! Writes a target's seeds and what was found with it into a folder, one file each.

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = &arguments[..] else { panic!("expected a target and a folder") };
    let inputs = (smalti_fuzz::target(name).seeds)().into_iter();
    for (i, bytes) in inputs.chain(smalti_fuzz::found(name).into_iter().map(|(_, bytes)| bytes)).enumerate() {
        std::fs::write(std::path::Path::new(folder).join(format!("seed-{i}")), bytes)?;
    }
    Ok(())
}
