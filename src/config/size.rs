//! How the size of the network's input is written.

use crate::detector::STRIDE;
use crate::vision::Size;

/// Longest side of an input.
const MAX_SIDE: usize = 4096;

/// `640`, or `384x640` as height and width.
///
/// # Errors
/// What is wrong with the text, and what fits.
pub fn parse_size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse::<usize>().map_err(|_| "give a number like 640, or HxW like 384x640");
    let (height, width) = match text.split_once(['x', 'X']) {
        Some((height, width)) => (side(height)?, side(width)?),
        None => (side(text)?, side(text)?),
    };
    let fits = |side: usize| side > 0 && side <= MAX_SIDE && side.is_multiple_of(STRIDE);
    if fits(height) && fits(width) {
        return Ok(Size { width, height });
    }
    let near = |side: usize| side.min(MAX_SIDE).next_multiple_of(STRIDE).max(STRIDE);
    let advice = match (near(height), near(width)) {
        (height, width) if height == width => height.to_string(),
        (height, width) => format!("{height}x{width}"),
    };
    Err(format!("sides must be multiples of {STRIDE}, {STRIDE} to {MAX_SIDE}; try {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let size = |width, height| Ok(Size { width, height });
        assert_eq!(parse_size("640"), size(640, 640));
        assert_eq!(parse_size("384x640"), size(640, 384));
        assert_eq!(parse_size("32X4096"), size(4096, 32));
        for (text, advice) in [
            ("600", "try 608"),
            ("360x640", "try 384x640"),
            ("0", "try 32"),
            ("99999", "try 4096"),
            ("640x", "like 640"),
            ("-640", "like 640"),
            ("", "like 640"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
