//! Tables as they are found in the world.

use super::*;
use crate::data::Dataset;

/// A folder with small images in these places and tables.
struct Folder(tempfile::TempDir);

impl Folder {
    fn of(images: &[&str]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (i, name) in images.iter().enumerate() {
            let path = folder.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let image = image::GrayImage::from_pixel(4, 4, image::Luma([i as u8]));
            image.save_with_format(path, image::ImageFormat::Png).unwrap();
        }
        folder
    }

    /// With 000.png, 001.png, ... of the classes cat, dog and eel in turn.
    fn of_rows(n: usize) -> (Folder, Vec<(String, &'static str)>) {
        let rows: Vec<(String, &str)> =
            (0..n).map(|i| (format!("{i:03}.png"), ["cat", "dog", "eel"][i % 3])).collect();
        (Folder::of(&rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()), rows)
    }

    fn open(&self, name: &str, text: &str) -> Result<Dataset> {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        Dataset::open(&path, Split::All)
    }

    /// `file class` of every image; the file by its value.
    fn read(&self, text: &str) -> Vec<String> {
        let data = self.open("table.csv", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let class = |i: usize| data.label(i).map_or("-", |label| &data.classes()[label as usize]);
        (0..data.len()).map(|i| format!("{} {}", data.image(i).unwrap().data()[0], class(i))).collect()
    }

    fn refused(&self, text: &str) -> String {
        let error = self.open("table.csv", text).unwrap_err();
        assert_eq!(error.exit_code(), 5, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        error.to_string()
    }
}

#[test]
fn a_file_outside_that_is_no_image_is_none_of_the_table() {
    let folder = Folder::of(&["of/a.png", "of/b.png", "c.png"]);
    std::fs::write(folder.0.path().join("a"), "something else").unwrap();
    let data = folder.open("of/table.csv", "a,cat\nb,dog\nc.png,eel\n").unwrap();
    assert_eq!([0, 1, 2].map(|i| data.image(i).unwrap().data()[0]), [0, 1, 2]);
}

#[test]
fn lines_are_images() {
    let folder = Folder::of(&["a.png", "sub/b, c.png", "x.png"]);
    let data = folder.open("table.csv", "a.png,dog\n\"sub/b, c.png\",cat\n# no image\nx.png,\n").unwrap();
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!((data.label(0), data.label(1), data.label(2)), (Some(1), Some(0), None));
    assert_eq!(data.image(1).unwrap().data(), [1; 16]);
    assert!(data.place(1).ends_with("sub/b, c.png"));
    assert!(data.labels().unwrap_err().to_string().contains("1 of 3 images have none"));
}

#[test]
fn headers_are_no_rows_whatever_they_say() {
    let (folder, rows) = Folder::of_rows(6);
    let expected: Vec<String> =
        rows.iter().enumerate().map(|(i, (_, class))| format!("{i} {class}")).collect();
    for header in [
        "",
        "path,label",
        "image_id,label",
        "id,breed",
        "filename,labels",
        "img,class_name",
        "file_name,Category",
        "Image Name,Class",
        "fichier,espece",
        "image,species",
        "FILE,TARGET",
        "name,fruit",
    ] {
        for separator in [",", ";", "\t", "|"] {
            let lines = rows.iter().map(|(name, class)| format!("{name},{class}"));
            let lines: Vec<String> = std::iter::once(header.to_owned()).chain(lines).collect();
            assert_eq!(folder.read(&lines.join("\n").replace(',', separator)), expected, "{header}");
        }
    }
    for header in ["label,path", "class_name,img", "breed,id"] {
        let lines = rows.iter().map(|(name, class)| format!("{class},{name}\n"));
        assert_eq!(folder.read(&format!("{header}\n{}", lines.collect::<String>())), expected, "{header}");
    }
}

#[test]
fn more_columns_do_not_mislead() {
    let (folder, rows) = Folder::of_rows(6);
    let expected: Vec<String> =
        rows.iter().enumerate().map(|(i, (_, class))| format!("{i} {class}")).collect();
    let table = |header: &str, line: &dyn Fn(usize, &str, &str) -> String| {
        let lines = rows.iter().enumerate().map(|(i, (name, class))| line(i, name, class) + "\n");
        format!("{header}\n{}", lines.collect::<String>())
    };
    // As pandas writes an index, as others number their rows, with numbers beside the names of classes.
    assert_eq!(
        folder.read(&table(",filename,label", &|i, name, class| format!("{i},{name},{class}"))),
        expected
    );
    assert_eq!(
        folder.read(&table("id,filename,label", &|i, name, class| format!("{i},{name},{class}"))),
        expected
    );
    let text = table("image,width,height,class_id,class_name", &|i, name, class| {
        format!("{name},4,4,{},{class}", i % 3)
    });
    assert_eq!(folder.read(&text), expected);
    let text = table("class id,filepaths,labels,card type,data set", &|i, name, class| {
        format!("{i},{name},{class},x,train")
    });
    assert_eq!(folder.read(&text), expected);
    // Without a header.
    assert_eq!(folder.read(&table("", &|i, name, class| format!("{i},{name},{class}"))), expected);
    assert_eq!(folder.read(&table("", &|_, name, class| format!("{name},{class},train"))), expected);
}

#[test]
fn columns_of_ones_and_zeros_are_classes() {
    let folder = Folder::of(&["a.png", "b.png", "c.png"]);
    let text = "filename, cat, dog\na.png, 1, 0\nb.png, 0, 1\nc.png, 0, 0\n";
    assert_eq!(folder.read(text), ["0 cat", "1 dog", "2 -"]);
    let text = "image,MEL,NV,BCC\na,1.0,0.0,0.0\nb,0.0,0.0,1.0\nc,0.0,1.0,0.0\n";
    assert_eq!(folder.read(text), ["0 MEL", "1 BCC", "2 NV"]);
    let text = "filename, Unlabeled, cat, dog\na.png, 1, 0, 0\nb.png, 0, 1, 0\nc.png, 0, 0, 1\n";
    assert_eq!(folder.read(text), ["0 -", "1 cat", "2 dog"]);
    let error = folder.refused("filename,cat,dog\na.png,1,0\nb.png,1,1\nc.png,0,1\n");
    assert!(error.contains("table.csv:3") && error.contains("`cat` and `dog`"), "{error}");
}

#[test]
fn files_are_found_without_their_extension_or_folder() {
    let folder = Folder::of(&["train/0a1b.jpg", "images/two.png", "cat/x/three.PNG", "four.v2.jpeg"]);
    let text = "id,breed\n0a1b,boxer\ntwo,collie\nthree,boxer\nfour.v2,pug\n";
    assert_eq!(folder.read(text), ["0 boxer", "1 collie", "2 boxer", "3 pug"]);
    let text = "0a1b.jpg,boxer\ntwo.png,collie\nx/three,boxer\nfour.v2.jpeg,pug\n";
    assert_eq!(folder.read(text), ["0 boxer", "1 collie", "2 boxer", "3 pug"]);
    let text = "path,label\ntrain\\0a1b.jpg,boxer\n.\\images\\two.png,collie\n./cat/x/three.PNG,boxer\n";
    assert_eq!(folder.read(text), ["0 boxer", "1 collie", "2 boxer"]);
    let text = "folder,file,label\ntrain,0a1b.jpg,boxer\nimages,two.png,collie\ncat/x,three.PNG,pug\n";
    assert_eq!(folder.read(text), ["0 boxer", "1 collie", "2 pug"]);
    // A table in a folder of its own names paths from the folder around it.
    assert_eq!(folder.open("tables/t.csv", "train/0a1b.jpg,a\nimages/two.png,b\n").unwrap().len(), 2);
}

#[test]
fn of_several_files_the_right_one_is_taken() {
    let folder =
        Folder::of(&["train/1.png", "test/1.png", "cat/2.png", "dog/2.png", "images/3.png", "masks/3.png"]);
    let data = folder.open("train.csv", "id,label\n1,a\n").unwrap();
    assert_eq!(data.image(0).unwrap().data()[0], 0);
    assert_eq!(folder.open("test.csv", "id,label\n1,a\n").unwrap().image(0).unwrap().data()[0], 1);
    assert_eq!(folder.read("id,label,split\n1,a,test\n1,b,train\n"), ["1 -", "0 b"]);
    assert_eq!(folder.read("2.png,dog\n2.png,cat\n3.png,cat\n"), ["3 dog", "2 cat", "4 cat"]);
    let error = folder.refused("1.png,a\n1.png,b\n");
    assert!(
        error.contains("table.csv:1") && error.contains("train/1.png") && error.contains("test/1.png"),
        "{error}"
    );
    // An image of the other split is not taken for the one that is missing.
    let error = folder.open("train.csv", "id,label\n9,a\n").unwrap_err().to_string();
    assert!(error.contains("1 of 1 files in the column `id` do not exist"), "{error}");
}

#[test]
fn splits_are_columns_of_many_kinds() {
    let folder = Folder::of(&["a.png", "b.png", "c.png"]);
    for (text, splits) in [
        (
            "split,Label,filename\ntest,2,a.png\ntrain,0,b.png\ntrain,1,c.png\n",
            &[Split::Train, Split::Test][..],
        ),
        (
            "image,label,data set\na.png,x,Training\nb.png,x,valid\nc.png,x,TEST\n",
            &[Split::Train, Split::Val, Split::Test],
        ),
        ("fname,label,is_valid\na.png,x,False\nb.png,y,True\nc.png,x,False\n", &[Split::Train, Split::Val]),
        ("a.png,x,train\nb.png,y,dev\nc.png,x,\n", &[Split::Train, Split::Val]),
        ("path,label,dataset\na.png,x,ham\nb.png,y,spam\nc.png,x,ham\n", &[Split::Train]),
    ] {
        let path = folder.0.path().join("table.csv");
        std::fs::write(&path, text).unwrap();
        assert_eq!(Dataset::splits(&path).unwrap(), splits, "{text}");
        assert_eq!(Dataset::open(&path, Split::All).unwrap().len(), 3);
    }
    let (path, text) =
        (folder.0.path().join("table.csv"), "filename,label,split\na.png,2,train\nb.png,1,test\n");
    std::fs::write(&path, text).unwrap();
    let test = Dataset::open(&path, Split::Test).unwrap();
    assert_eq!((test.len(), test.label(0), test.classes().len()), (1, Some(1), 3));
}

#[test]
fn paths_alone_have_no_labels() {
    let folder = Folder::of(&["a.png", "b.png"]);
    for text in ["a.png\nb.png\n", "path\na.png\nb.png\n"] {
        assert!(folder.open("table.csv", text).unwrap().classes().is_empty());
    }
}

#[test]
fn damaged_tables_are_refused() {
    let folder = Folder::of(&["a.png", "b.png"]);
    for (text, expected) in [
        ("", &["the table is empty"][..]),
        ("path,label\n", &["the table is empty"]),
        ("a.png,1\n,2\n", &["table.csv:2: no path"]),
        ("path,label,split\na.png,1,fold3\n", &["table.csv:2", "`fold3` is not a split"]),
        ("a.png,1\nb.png,4000000000\n", &["4000000000"]),
        ("foo,label\nx,y\n", &["`foo`, `label`", "expected one that names files"]),
        ("foo,bar\nx,y\n", &["2 of 2 files in column 1 (of a table without a header) do not exist", "`foo`"]),
        (
            "path,price,weight\na.png,3,7\nb.png,4,9\n",
            &["`path`, `price`, `weight`", "expected one called label"],
        ),
        ("a.png,x,3,7\nb.png,y,4,9\n", &["4 columns without a header"]),
        (
            "gone.png,cat\nlost.png,dog\na.png,cat\n",
            &[
                "2 of 3 files in column 1 (of a table without a header) do not exist",
                "`gone.png`",
                "line 1",
                "looked for at",
            ],
        ),
        (
            "image_id,label\nq1,cat\nq2,dog\n",
            &["2 of 2 files in the column `image_id` do not exist", "`q1`", "line 2"],
        ),
    ] {
        let error = folder.refused(text);
        expected.iter().for_each(|expected| assert!(error.contains(expected), "{error} / {expected}"));
    }
}

#[test]
fn a_few_missing_files_are_said_and_left_to_training() {
    let folder = Folder::of(&["a.png", "b.png"]);
    let path = folder.0.path().join("table.csv");
    std::fs::write(&path, "gone.png,cat\na.png,cat\nb.png,dog\n").unwrap();
    let notes = read(&path, None).unwrap().notes;
    assert!(notes[0].contains("1 of 3 files in column 1") && notes[0].contains("gone.png"), "{notes:?}");
    let data = Dataset::open(&path, Split::Train).unwrap();
    assert_eq!((data.len(), data.label(0)), (3, Some(0)));
    assert!(data.image(0).unwrap_err().to_string().contains("gone.png"));
}
