//! The zip archive around a checkpoint, read with distrust of every size it states.

use std::io::{Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::error::CheckpointError;

/// Longest file read: YOLOv8x with its optimizer in f32 has about 1 GiB.
const MAX_FILE: u64 = 4 << 30;
/// Most entries; YOLOv8x with its optimizer has some 2,000.
const MAX_ENTRIES: u64 = 65_536;
/// Length of the end-of-central-directory record without its comment.
const END_RECORD: usize = 22;

/// An open archive and the folder that its entries lie in.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    /// Length of the file: no stored entry can be longer.
    pub(super) file_len: u64,
    prefix: String,
    /// Bytes read so far, which may not exceed twice the file.
    read: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive that holds a `data.pkl`.
    pub(super) fn open(mut reader: R) -> Result<Self, CheckpointError> {
        let file_len = reader.seek(SeekFrom::End(0))?;
        if file_len > MAX_FILE {
            return Err(CheckpointError::TooLarge { found: file_len, limit: MAX_FILE });
        }
        check_signature(&mut reader, file_len)?;
        check_entry_count(&mut reader, file_len)?;
        reader.rewind()?;
        let zip = ZipArchive::new(reader).map_err(damaged)?;
        let pickle = zip.file_names().find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"));
        let Some(pickle) = pickle else {
            return Err(CheckpointError::NoPickle { found: guess(&zip) });
        };
        let prefix = pickle.trim_end_matches("data.pkl").to_string();
        if zip.index_for_name(&format!("{prefix}constants.pkl")).is_some() {
            return Err(CheckpointError::NoPickle { found: "its data.pkl is a TorchScript export's" });
        }
        Ok(Self { zip, file_len, prefix, read: 0 })
    }

    /// Whether an entry of this name lies beside `data.pkl`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.prefix)).is_some()
    }

    /// A whole entry beside `data.pkl`, its checksum verified.
    pub(super) fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, CheckpointError> {
        let full = format!("{}{name}", self.prefix);
        let Some(index) = self.zip.index_for_name(&full) else {
            return Err(CheckpointError::Zip { reason: format!("entry `{full}` is missing") });
        };
        // Asked raw first: the zip reader opens no method that it was built without.
        if self.zip.by_index_raw(index).map_err(damaged)?.compression() != CompressionMethod::Stored {
            return Err(CheckpointError::Compressed { entry: full });
        }
        let mut file = self.zip.by_index(index).map_err(damaged)?;
        let size = file.size();
        // Entries may overlap; reading the same bytes again and again is no checkpoint's way.
        let left = (2 * self.file_len).saturating_sub(self.read);
        let limit = limit.min(self.file_len).min(left);
        if size > limit {
            return Err(CheckpointError::EntryTooLarge { entry: full, found: size, limit });
        }
        self.read += size;
        let mut bytes = Vec::with_capacity(size as usize);
        // Reading to the end is what makes the zip reader compare the checksum.
        file.read_to_end(&mut bytes)
            .map_err(|e| CheckpointError::Zip { reason: format!("`{full}`: {e}") })?;
        if bytes.len() as u64 != size {
            return Err(CheckpointError::Zip { reason: format!("`{full}` ends early") });
        }
        Ok(bytes)
    }
}

fn damaged(fault: zip::result::ZipError) -> CheckpointError {
    CheckpointError::Zip { reason: fault.to_string() }
}

/// What an archive without `data.pkl` may be.
fn guess<R: Read + Seek>(zip: &ZipArchive<R>) -> &'static str {
    let has = |end: &str| zip.file_names().any(|n| n.ends_with(end));
    if has("AndroidManifest.xml") {
        "an Android package"
    } else if has(".npy") {
        "a NumPy archive"
    } else {
        "some other zip archive"
    }
}

fn check_signature<R: Read + Seek>(reader: &mut R, len: u64) -> Result<(), CheckpointError> {
    reader.rewind()?;
    let mut head = [0; 16];
    let n = len.min(16) as usize;
    reader.read_exact(&mut head[..n])?;
    let found = match &head[..n] {
        [] => "the file is empty",
        [b'P', b'K', ..] => return Ok(()),
        // torch's old format starts with its pickled magic number, 0x1950a86a20f9469cfc6c.
        [0x80, 0x02, 0x8a, 0x0a, ..] => "it is of PyTorch's format before 1.6",
        [0x80, ..] => "it is a bare pickle",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', b'h', b't', b't', b'p', b's', ..] => {
            "it is a Git LFS pointer, fetch the real file"
        }
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "it is a TFLite model",
        [_, _, _, _, _, _, _, _, b'{', b'"', ..] => {
            "it is a safetensors file, give `convert` its model file with --yaml"
        }
        [b'<', ..] => "it is a web page",
        _ => "its first bytes are not PK",
    };
    Err(CheckpointError::NotZip { found })
}

/// Counts entries before the zip reader makes room for them.
fn check_entry_count<R: Read + Seek>(reader: &mut R, len: u64) -> Result<(), CheckpointError> {
    let tail_len = len.min(65_536 + END_RECORD as u64 + 20) as usize;
    reader.seek(SeekFrom::Start(len - tail_len as u64))?;
    let mut tail = vec![0; tail_len];
    reader.read_exact(&mut tail)?;
    let most = tail.windows(4).enumerate().filter_map(|(at, w)| match w {
        b"PK\x05\x06" => little_endian(&tail, at + 10, 2),
        b"PK\x06\x06" => little_endian(&tail, at + 32, 8),
        _ => None,
    });
    let Some(found) = most.max() else {
        return Err(CheckpointError::Zip { reason: "no end record, the file is cut off".to_string() });
    };
    if found > MAX_ENTRIES {
        return Err(CheckpointError::TooManyEntries { found, limit: MAX_ENTRIES });
    }
    Ok(())
}

fn little_endian(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}
