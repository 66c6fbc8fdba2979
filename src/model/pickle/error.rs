//! Why bytes are no pickle.

use thiserror::Error;

/// Why bytes are no pickle that this reader takes.
#[derive(Debug, Error, PartialEq)]
pub enum PickleError {
    /// Longer than any checkpoint's.
    #[error("the pickle has {found} bytes, at most {limit} are read")]
    TooLong {
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// It ends inside an opcode, or without `STOP`.
    #[error("the pickle ends early, at byte {at}; the file is cut off, copy it again")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// An opcode that PyTorch does not write.
    #[error(
        "byte {at}: opcode 0x{found:02x} is not one that PyTorch writes; save the model again with torch.save"
    )]
    Opcode {
        /// Where.
        at: usize,
        /// The opcode.
        found: u8,
    },
    /// A protocol that did not exist when this was written.
    #[error("pickle protocol {found}, 2 to 5 are read; save again with pickle_protocol=2")]
    Protocol {
        /// The protocol.
        found: u8,
    },
    /// An opcode takes more from the stack than lies there.
    #[error("byte {at}: the stack is too short; the file is damaged")]
    Underflow {
        /// Where.
        at: usize,
    },
    /// A value of another kind than the opcode takes.
    #[error("byte {at}: expected {expected}; the file is damaged")]
    Kind {
        /// Where.
        at: usize,
        /// What it takes.
        expected: &'static str,
    },
    /// A memo entry that was never written.
    #[error("byte {at}: memo entry {found} was never written; the file is damaged")]
    Memo {
        /// Where.
        at: usize,
        /// The entry.
        found: u32,
    },
    /// Too many values.
    #[error("byte {at}: more than {limit} values; a checkpoint has a tenth of it")]
    TooManyValues {
        /// Where.
        at: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many elements.
    #[error("byte {at}: more than {limit} elements; a checkpoint has a tenth of it")]
    TooManyElements {
        /// Where.
        at: usize,
        /// The limit.
        limit: usize,
    },
    /// Text that is no UTF-8.
    #[error("byte {at}: text that is not UTF-8; the file is damaged")]
    Utf8 {
        /// Where.
        at: usize,
    },
}
