//! The one block of memory that activations live in, and strided views of it.

/// Alignment of arenas and of packed weights, in bytes: a cache line, and a ZMM register.
pub const ALIGN: usize = 64;

/// Bytes behind the last view that a kernel may read (never use) past a view's end.
pub const SLACK: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// A zeroed, 64-byte aligned block of bytes.
pub struct Arena {
    lines: Vec<Line>,
    len: usize,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("len", &self.len).finish()
    }
}

impl Arena {
    /// Allocates `len` bytes (and slack behind them).
    pub fn new(len: usize) -> Self {
        Self { lines: vec![Line([0; ALIGN]); (len + SLACK).div_ceil(ALIGN)], len }
    }

    /// Usable bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All usable bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` owns at least `len` initialised bytes, and `u8` has no alignment.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// All usable bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// An arena that holds packed weights, for their alignment.
    pub fn of_weights(weights: &[i8]) -> Self {
        let mut arena = Self::new(weights.len());
        arena.signed_mut().copy_from_slice(weights);
        arena
    }

    /// All usable bytes, as weights.
    pub fn signed(&self) -> &[i8] {
        // SAFETY: as in `bytes`; `i8` has the size and alignment of `u8`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// All usable bytes, as weights.
    pub fn signed_mut(&mut self) -> &mut [i8] {
        // SAFETY: as in `bytes_mut`; `i8` has the size and alignment of `u8`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// The first byte; valid for the slack behind [`Arena::len`] too.
    pub(super) fn base(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    /// The first byte; valid for the slack behind [`Arena::len`] too.
    pub(super) fn base_mut(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

/// A picture of `height x width` pixels with `channels` channels somewhere in an [`Arena`].
///
/// Pixels lie `stride` bytes apart without a gap between rows, so that concat is written in place:
/// several views with different `offset`s share the pixels of one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// First byte in the arena.
    pub offset: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Bytes of one channel: 1 for int8, 4 for f32.
    pub element: usize,
    /// Bytes from one pixel to the next.
    pub stride: usize,
}

impl View {
    /// A dense int8 view.
    pub fn dense(offset: usize, height: usize, width: usize, channels: usize) -> Self {
        Self { offset, height, width, channels, element: 1, stride: channels }
    }

    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// One past the last byte in the arena.
    pub fn end(&self) -> usize {
        match self.pixels() {
            0 => self.offset,
            n => self.offset + (n - 1) * self.stride + self.channels * self.element,
        }
    }
}
