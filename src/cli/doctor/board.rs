//! The board: its name, its heat, and what a Raspberry Pi tells of its power supply.

use super::report::Line;
use crate::cli::root::Root;
use crate::sink::mqtt::Thermometer;

/// From here on boards slow down to stay whole: a Raspberry Pi at 80 °C, others little later.
const HOT: f64 = 80.0;
/// Bits of the firmware's word that tell of now; those since boot lie so much higher.
const SINCE_BOOT: u32 = 16;
const SUPPLY: &str = "use a power supply made for this board and a short cable, or a powered USB hub";
const COOLING: &str = "give it a heat sink or a fan";
/// What each bit says, and what to do.
const BITS: [(&str, &str); 4] = [
    ("too little voltage", SUPPLY),
    ("clock capped", SUPPLY),
    ("slowed down", COOLING),
    ("at its soft limit of temperature", COOLING),
];

/// A line for name and temperature, and one for the firmware's word where there is one.
pub fn look(root: &Root) -> Vec<Line> {
    let name = root.text("/proc/device-tree/model");
    let celsius = Thermometer::below(&root.path("/sys/class/thermal")).and_then(|t| t.celsius());
    let throttled = throttled(root).map(throttling);
    board(name, celsius).into_iter().chain(throttled).collect()
}

fn board(name: Option<String>, celsius: Option<f64>) -> Option<Line> {
    let heat = celsius.map(|celsius| format!("{celsius:.0} °C"));
    let known: Vec<String> = name.into_iter().chain(heat).collect();
    let text = known.join(", ");
    match celsius {
        _ if known.is_empty() => None,
        Some(celsius) if celsius >= HOT => Some(Line::warning("board", format!("{text} is hot; {COOLING}"))),
        _ => Some(Line::ok("board", text)),
    }
}

/// The firmware's word; `None` where the board has none. The folder's name has an address on newer boards.
fn throttled(root: &Root) -> Option<u32> {
    let named = |path: &std::path::Path, like: fn(&str) -> bool| {
        path.file_name().is_some_and(|name| like(&name.to_string_lossy()))
    };
    let platform = root.entries("/sys/devices/platform");
    let socs = platform.into_iter().filter(|path| named(path, |name| name.starts_with("soc")));
    socs.filter_map(|soc| std::fs::read_dir(soc).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| named(path, |name| name.ends_with(":firmware")))
        .filter_map(|path| std::fs::read_to_string(path.join("get_throttled")).ok())
        .find_map(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())
}

fn throttling(bits: u32) -> Line {
    let is = |bit: usize, offset: u32| bits >> (bit as u32 + offset) & 1 == 1;
    let (mut faults, mut cures) = (Vec::new(), Vec::new());
    for (bit, (fault, cure)) in BITS.into_iter().enumerate() {
        let when = match (is(bit, 0), is(bit, SINCE_BOOT)) {
            (true, _) => "now",
            (false, true) => "since boot",
            (false, false) => continue,
        };
        faults.push(format!("{fault} {when}"));
        if !cures.contains(&cure) {
            cures.push(cure);
        }
    }
    match faults.is_empty() {
        true => Line::ok("power", "no lack of voltage and no throttling since boot"),
        false => Line::warning("power", format!("{}; {}", faults.join(", "), cures.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::doctor::report::Status;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (path, text) in files {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_board_tells_its_name_and_heat() {
        let pi = ("/proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0");
        let zone = |temp| ("/sys/class/thermal/thermal_zone0/temp", temp);
        let (_folder, root) = tree(&[pi, zone("51234\n")]);
        assert_eq!(look(&root), [Line::ok("board", "Raspberry Pi 4 Model B Rev 1.4, 51 °C")]);
        let (_folder, root) = tree(&[pi, zone("84100\n")]);
        let [line] = &look(&root)[..] else { panic!("one line") };
        assert!(
            line.status == Status::Warning && line.text.contains("84 °C is hot; give it a heat sink"),
            "{line:?}"
        );
        let (_folder, root) = tree(&[("/proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")]);
        assert_eq!(look(&root), [Line::ok("board", "NVIDIA Jetson Orin Nano")]);
        let (_folder, root) = tree(&[zone("40000")]);
        assert_eq!(look(&root), [Line::ok("board", "40 °C")]);
        let (_folder, root) = tree(&[]);
        assert_eq!(look(&root), []);
    }

    #[test]
    fn the_firmware_is_asked_on_older_and_newer_boards() {
        for folder in ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"] {
            let file = format!("/sys/devices/platform/{folder}/get_throttled");
            for (text, bits) in [("0\n", 0), ("50005\n", 0x50005), ("0x50000\n", 0x50000)] {
                let (_folder, root) = tree(&[(file.as_str(), text)]);
                assert_eq!(throttled(&root), Some(bits), "{folder}");
            }
            let (_folder, root) = tree(&[(file.as_str(), "?")]);
            assert_eq!(throttled(&root), None);
        }
    }

    #[test]
    fn each_bit_in_words() {
        assert_eq!(throttling(0).status, Status::Ok);
        // Bits that mean nothing here.
        assert_eq!(throttling(0xff00_fff0 & !0xf_0000).status, Status::Ok);
        for (bits, words) in [
            (1, ["too little voltage now", "power supply"]),
            (1 << 1, ["clock capped now", "power supply"]),
            (1 << 2, ["slowed down now", "heat sink"]),
            (1 << 3, ["soft limit of temperature now", "heat sink"]),
            (1 << 16, ["too little voltage since boot", "power supply"]),
            (1 << 17, ["clock capped since boot", "power supply"]),
            (1 << 18, ["slowed down since boot", "heat sink"]),
            (1 << 19, ["soft limit of temperature since boot", "heat sink"]),
        ] {
            let line = throttling(bits);
            assert_eq!(line.status, Status::Warning);
            assert!(words.iter().all(|words| line.text.contains(words)), "{bits:#x}: {}", line.text);
        }
        let both = throttling(0x50005).text;
        assert_eq!(both, format!("too little voltage now, slowed down now; {SUPPLY}; {COOLING}"));
    }
}
