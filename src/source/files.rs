//! Picture files and folders as the command line gives them.

use std::io;
use std::path::{Path, PathBuf};

/// Extensions that are taken from a folder (lower case). A file named by itself may have any.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];

/// One picture to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input, given as `-`.
    Stdin,
}

impl Input {
    /// Its name in results: the path as given.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".into(),
        }
    }

    /// Its path; `-` for standard input.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stdin => Path::new("-"),
        }
    }
}

/// Why an argument gave no pictures.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The folder could not be listed.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Nothing in the folder ends like a picture.
    #[error("no picture in this folder; it needs files ending in {}", EXTENSIONS.join(", "))]
    NoPicture,
}

/// The pictures that one argument means: itself, or a folder's pictures sorted by name (not its folders').
///
/// A path that does not exist is returned as a file, so that reading it gives the error in its place.
pub fn list(argument: &Path) -> Result<Vec<Input>, ListError> {
    if argument == Path::new("-") {
        return Ok(vec![Input::Stdin]);
    }
    if !argument.is_dir() {
        return Ok(vec![Input::File(argument.to_path_buf())]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(argument)? {
        let path = entry?.path();
        if is_picture(&path) && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(ListError::NoPicture);
    }
    files.sort();
    Ok(files.into_iter().map(Input::File).collect())
}

/// Whether a file's name ends like a picture's.
pub fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_pictures_sorted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "c.webp", "a.jpeg"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("folder.jpg")).unwrap();
        let names: Vec<_> = list(folder.path())
            .unwrap()
            .iter()
            .map(|input| input.path().file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.jpeg", "a.png", "b.JPG", "c.webp"]);
    }

    #[test]
    fn a_file_is_taken_whatever_its_name() {
        for name in ["absent", "x.txt"] {
            assert_eq!(list(Path::new(name)).unwrap(), [Input::File(name.into())]);
        }
        assert_eq!(list(Path::new("-")).unwrap(), [Input::Stdin]);
    }

    #[test]
    fn a_folder_without_pictures_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(list(folder.path()), Err(ListError::NoPicture)));
    }
}
