//! Data sets, of every kind that is not a folder of image files.

use std::path::Path;

use smalti_trainer::data::{Dataset, Splits};

use super::{joined, two, written};

/// Opens a data set and looks at its first images.
fn look(path: &Path) -> Result<(), String> {
    let Ok(splits) = Splits::read(path) else { return Ok(()) };
    for split in splits.present() {
        let Ok(data) = splits.dataset(*split) else { continue };
        _ = (data.class_counts(), data.fingerprint());
        for i in 0..data.len().min(3) {
            _ = (data.place(i), data.image(i));
        }
    }
    Ok(())
}

/// A table of paths and labels beside two images.
pub fn table(bytes: &[u8]) -> Result<(), String> {
    let image = &super::image::seeds()[1];
    written("table/a.bmp", image);
    let folder = written("table/b c.bmp", image);
    let table = written("table.csv", bytes);
    if let Ok(data) = Dataset::from_table(&table, folder.parent().expect("a folder")) {
        _ = (data.class_counts(), data.image(0));
    }
    Ok(())
}

pub fn tables() -> Vec<Vec<u8>> {
    let tables = [
        "path,label,split\na.bmp,red,train\n\"b c.bmp\",blue,test\n",
        "\u{feff}a.bmp;0\r\nb c.bmp;1\r\n",
        "file\tred\tblue\na\t1\t0\nb c\t0\t1\n",
        "label|filename\nx|file:b%20c.bmp\n",
    ];
    tables.map(|table| table.as_bytes().to_vec()).into()
}

/// MNIST-style files: images, then labels.
pub fn idx(bytes: &[u8]) -> Result<(), String> {
    let (images, labels) = two(bytes);
    written("idx/train-labels-idx1-ubyte", labels);
    let path = written("idx/train-images-idx3-ubyte", images);
    look(path.parent().expect("a folder"))
}

pub fn idx_files() -> Vec<Vec<u8>> {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4][..], &[9; 24]].concat();
    vec![joined(&images, &[0, 0, 8, 1, 0, 0, 0, 2, 5, 1])]
}

/// One of CIFAR-10's batches.
pub fn cifar(bytes: &[u8]) -> Result<(), String> {
    written("cifar/batches.meta.txt", b"plane\ncar\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n");
    let path = written("cifar/data_batch_1.bin", bytes);
    look(path.parent().expect("a folder"))
}

pub fn cifar_files() -> Vec<Vec<u8>> {
    vec![(0..2 * 3073).map(|i: usize| if i.is_multiple_of(3073) { 3 } else { i as u8 }).collect()]
}

/// A shard of images and labels.
pub fn tar(bytes: &[u8]) -> Result<(), String> {
    look(&written("train-0000.tar", bytes))
}

pub fn tars() -> Vec<Vec<u8>> {
    let mut shard = ::tar::Builder::new(Vec::new());
    for (name, bytes) in
        [("1.bmp", super::image::seeds()[1].clone()), ("1.cls", b"2".to_vec()), ("d/2.cls", b"x".to_vec())]
    {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        shard.append_data(&mut header, name, &bytes[..]).expect("a shard in memory");
    }
    vec![shard.into_inner().expect("a shard in memory")]
}
