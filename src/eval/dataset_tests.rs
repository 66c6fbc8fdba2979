use super::*;

/// Writes files of a dataset: pictures are empty, nobody decodes them here.
fn dataset(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn open(folder: &tempfile::TempDir, split: &str) -> Result<Dataset, DatasetError> {
    Dataset::open(&folder.path().join("data.yaml"), split)
}

/// Pictures relative to the dataset's folder.
fn names(folder: &tempfile::TempDir, split: &str) -> Vec<String> {
    let samples = open(folder, split).unwrap().samples;
    let name = |s: &Sample| s.picture.strip_prefix(folder.path()).unwrap().display().to_string();
    samples.iter().map(name).collect()
}

#[test]
fn splits_are_folders_lists_and_text_files() {
    let folder = dataset(&[
        (
            "data.yaml",
            "path: set # root\ntrain: images/train\nval:\n  - images/b\n  - images/train\ntest: some.txt\nnames:\n  1: car\n  0: person\n",
        ),
        ("set/images/train/2.JPG", ""),
        ("set/images/train/deep/1.png", ""),
        ("set/images/train/notes.txt", ""),
        ("set/images/b/9.webp", ""),
        ("set/some.txt", "./images/b/9.webp\n\nimages/train/2.JPG\r\n"),
    ]);
    assert_eq!(names(&folder, "train"), ["set/images/train/2.JPG", "set/images/train/deep/1.png"]);
    assert_eq!(
        names(&folder, "val"),
        ["set/images/b/9.webp", "set/images/train/2.JPG", "set/images/train/deep/1.png"]
    );
    assert_eq!(names(&folder, "test"), ["set/images/b/9.webp", "set/images/train/2.JPG"]);
    assert_eq!(open(&folder, "val").unwrap().classes, ["person", "car"]);
}

#[test]
fn labels_lie_beside_the_last_images() {
    for (picture, labels) in [
        ("/a/images/x/images/val/1.jpg", "/a/images/x/labels/val/1.txt"),
        ("images/1.tar.png", "labels/1.tar.txt"),
        ("/a/myimages/1.jpg", "/a/myimages/1.txt"),
        ("/a/images", "/a/images.txt"),
    ] {
        assert_eq!(label_path(Path::new(picture)), Path::new(labels));
    }
}

#[test]
fn exports_of_other_tools_are_read() {
    let folder = dataset(&[
        (
            "data.yaml",
            "val: ../valid/images\nnc: 2\nnames: ['0', 'None']\ndownload: |\n  import os\n\n  x: [\nroboflow:\n  url: https://example.org/a\n",
        ),
        ("valid/images/1.jpg", ""),
        ("valid/labels/1.txt", "\u{feff}1 0.5 0.5 0.5 0.5\n"),
    ]);
    let set = open(&folder, "val").unwrap();
    assert_eq!(set.classes, ["0", "None"]);
    let labels = set.labels(&set.samples[0]).unwrap();
    let size = Size { width: 200, height: 100 };
    assert_eq!(truths(&labels, size), [Truth { class_id: 1, corners: [50.0, 25.0, 150.0, 75.0] }]);
}

#[test]
fn a_missing_label_file_is_no_object_and_a_broken_one_names_file_and_line() {
    let folder = dataset(&[
        ("data.yaml", "val: images\nnames: [a]\n"),
        ("images/1.jpg", ""),
        ("images/2.jpg", ""),
        ("images/3.jpg", ""),
        ("labels/2.txt", "0 .5 .5 .1 .1\n0 .5 .5\n"),
    ]);
    fs::write(folder.path().join("labels/3.txt"), b"\xff\xfe\x00").unwrap();
    let set = open(&folder, "val").unwrap();
    assert_eq!(set.labels(&set.samples[0]).unwrap(), []);
    let error = set.labels(&set.samples[1]).unwrap_err();
    let error = format!("{}: {error}", error.path().display());
    assert!(error.contains("labels/2.txt: line 2: 3 values"), "{error}");
    assert!(matches!(set.labels(&set.samples[2]), Err(DatasetError::NotText { .. })));
    // A folder in a label file's place is not "no objects".
    fs::create_dir(folder.path().join("labels/1.txt")).unwrap();
    assert!(matches!(set.labels(&set.samples[0]), Err(DatasetError::NotText { .. })));
}

#[test]
fn each_fault_has_its_error() {
    let error = |yaml: &str, split: &str| {
        let folder = dataset(&[("data.yaml", yaml), ("images/1.jpg", ""), ("empty/1.txt", "images/0.jpg")]);
        open(&folder, split).unwrap_err()
    };
    for (yaml, hint) in [
        ("val: images\n", "names: should be"),
        ("val: images\nnames: 3\n", "names: should be"),
        ("val: images\nnames: {0: a, 2: b}\n", "without gaps"),
        ("val: images\nnames: [a, [b]]\n", "names: should be"),
        ("val: images\nnames: []\n", "no class"),
        ("val: images\nnames: [a]\nnc: 2\n", "1 names, but nc is 2"),
        ("val: images\nnc: 99999999999\n", "names: should be"),
        ("val: images\nnames: [a]\npath: [x]\n", "path: should be"),
        ("val: {a: b}\nnames: [a]\n", "val: should be"),
        ("val: [images, 3]\nnames: [a]\n", "val: should be"),
        ("train: images\nnames: [a]\n", "no split 'val'; it has train"),
        ("names: [a]\n", "no split 'val'; it has none"),
        ("val: absent\nnames: [a]\n", "absent: no such file or folder"),
        ("val: empty/1.txt\nnames: [a]\n", "0.jpg: no such file"),
        ("val: empty\nnames: [a]\n", "no picture found"),
        ("val: []\nnames: [a]\n", "no picture found"),
        ("val: [\n", "line 1"),
        ("just words", "names: should be"),
        ("", "names: should be"),
    ] {
        let error = error(yaml, "val");
        let text = format!("{}: {error}", error.path().display());
        assert!(text.contains(hint), "{yaml}: {text}");
    }
    assert!(matches!(Dataset::open(Path::new("absent.yaml"), "val"), Err(DatasetError::Read { .. })));
    assert!(matches!(Dataset::open(Path::new("/dev/zero"), "val"), Err(DatasetError::NotText { .. })));
    let folder = dataset(&[("data.yaml", "val: images\nnc: 3\n"), ("images/1.jpg", "")]);
    let set = open(&folder, "val").unwrap();
    assert!(set.check_classes(3).is_ok());
    let text = set.check_classes(80).unwrap_err().to_string();
    assert!(text.contains("has 3 classes, the model 80"), "{text}");
}
