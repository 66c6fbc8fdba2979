//! The last picture with its boxes, for whoever asks. While nobody does, it costs the pipeline one load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;

use crate::vision::{Detection, draw_detections, encode_jpeg};

/// A slot that the pipeline fills when it is wanted.
#[derive(Debug, Default)]
pub struct Snapshot {
    wanted: AtomicBool,
    slot: Mutex<Slot>,
    filled: Condvar,
    /// One picture is encoded at a time: who asks may wait, the detector needs the other cores.
    encoding: Mutex<()>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Counts pictures, so that one who waits knows a new one.
    number: u64,
    picture: Option<Arc<Picture>>,
}

#[derive(Debug)]
struct Picture {
    image: RgbImage,
    detections: Vec<Detection>,
    classes: Vec<String>,
}

impl Snapshot {
    /// Whether somebody waits for the next picture. Call [`Self::fill`] then.
    pub fn wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Gives a picture, its detections and the model's class names. Copies; drawing and encoding is done by
    /// the one who asked.
    pub fn fill(&self, image: &RgbImage, detections: &[Detection], classes: &[String]) {
        self.wanted.store(false, Relaxed);
        let picture =
            Picture { image: image.clone(), detections: detections.to_vec(), classes: classes.to_vec() };
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.number += 1;
        slot.picture = Some(Arc::new(picture));
        drop(slot);
        self.filled.notify_all();
    }

    /// Asks for a picture and waits for it; a JPEG, or none within `limit`.
    pub(super) fn jpeg(&self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let before = slot.number;
        self.wanted.store(true, Relaxed);
        while slot.number == before {
            let left = end.checked_duration_since(Instant::now())?;
            slot = self.filled.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let picture = Arc::clone(slot.picture.as_ref()?);
        // The pipeline must not wait for this lock while a picture is drawn.
        drop(slot);
        let _one = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut image = picture.image.clone();
        draw_detections(&mut image, &picture.detections, &picture.classes);
        encode_jpeg(&image).inspect_err(|e| log::warn!("/snapshot.jpg: {e}")).ok()
    }
}
