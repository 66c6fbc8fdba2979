use std::collections::BTreeMap;

use super::*;

fn load_text(text: &str, overrides: Vec<Override>) -> Result<Loaded, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), overrides)
}

fn problems(text: &str) -> Vec<String> {
    let problems = load_text(text, Vec::new()).expect_err(text);
    problems.iter().map(|p| p.to_string().rsplit_once("g.toml:").unwrap().1.to_owned()).collect()
}

#[test]
fn nothing_given_is_sound() {
    let config = load(None, Vec::new()).unwrap().config;
    assert_eq!(config.source.address, "/dev/video0");
    assert_eq!((config.detection.conf, config.detection.max_det), (0.25, 300));
    assert!(config.jsonl.enabled && config.mqtt.is_none() && config.watchdog);
}

#[test]
fn every_fault_is_told_at_once_with_its_line() {
    let text = "devise = 'a'\n[model]\nconf = 1.5\niou = 'x'\nclases = []\n\n[sorce]\n[mqtt]\nport = 0\n";
    assert_eq!(
        problems(text),
        [
            "1: devise: no such key; did you mean 'device'?",
            "3: [model] conf: expected a number from 0 to 1, found 1.5",
            "4: [model] iou: expected a number from 0 to 1, found the text \"x\"",
            "5: [model] clases: no such key; did you mean 'classes'?",
            "7: sorce: no such key; did you mean 'source'?",
            "9: [mqtt] port: expected a whole number from 1 to 65535, found 0",
        ]
    );
}

#[test]
fn each_wrong_value_says_what_is_right() {
    for (text, words) in [
        ("device = 'a b'", "1: device: it is part of topics"),
        ("device = 3", "expected a text in quotes, found 3"),
        ("model = 3", "expected a table: write [model], found 3"),
        ("[model]\npath = 'absent.safetensors'", "2: [model] path: no file absent.safetensors"),
        ("[model]\npath = '/'", "is a folder; name a file"),
        ("[model]\nengine = 'tpu'", "write \"auto\" or \"cpu\""),
        ("[model]\nthreads = 0", "from 1 to 1024, found 0"),
        ("[model]\nimgsz = 600", "try 608"),
        ("[model]\nimgsz = true", "expected a number or a text, found true"),
        ("[model]\nclasses = ['a', 1]", "expected a list of texts in quotes, found 1"),
        ("[source]\ndevice = '/dev/video0'\nurl = 'x'", "3: [source] url: device and url are both given"),
        ("[source]\nfps = -1", "from 0.001 to 1000, found -1"),
        ("[source]\nfps = nan", "found NaN"),
        ("[source]\nwidth = 99999999999999999999", "found an integer beyond 64 bits"),
        ("[jsonl]\npath = '/absent/x.jsonl'", "no folder /absent; make it"),
        ("[jsonl]\nenabled = 'yes'", "expected true or false"),
        ("[mqtt]\nhost = 'mqtt://broker'", "without scheme, port or path"),
        ("[mqtt]\nqos = 2", "from 0 to 1, found 2"),
        ("[mqtt]\ntls = true\nca = '/absent/ca.pem'", "3: [mqtt] ca: no file /absent/ca.pem"),
        ("[mqtt]\npassword_file = '/absent/p'\nusername = 'u'", "no file /absent/p"),
        (
            "[mqtt]\npassword_file = 'absent'\nusername = 'u'",
            "no file absent; give a path; a bare name is a credential",
        ),
        ("[mqtt]\npassword_file = '/etc/hostname'", "set username too"),
        ("[mqtt]\nca = '/etc/hostname'", "set tls = true"),
        ("[mqtt]\ndiscovery_prefix = 'a/+'", "is no topic"),
        ("[metrics]\nlisten = '9477'", "write one like \"127.0.0.1:9477\""),
        ("[metrics]\nlisten = '0.0.0.0:9477'", "let a proxy serve it"),
        ("[daemon]\nwatchdog = 1", "expected true or false, found 1"),
        ("[events]\nmin_frames = 0", "from 1 to 1000"),
        ("[classes]\nperson = 0.5", "2: [classes.person]: expected a table"),
        ("[classes.person]\nconfidense = 0.5", "did you mean 'confidence'?"),
        ("zones = 1", "each with the header [[zones]], found 1"),
        ("[[zones]]\npoints = [[0,0],[1,0],[1,1]]", "[[zones]] 1 name: give each zone a name"),
        ("[[zones]]\nname='a'\npoints = [[0,0],[1,0]]", "3: [[zones]] 1 points: 2 points; give 3"),
        ("[[zones]]\nname='a'\npoints = [[0,0],[1,0],[2,1]]", "give shares of the picture"),
        ("[[zones]]\nname='a'\npoints = [[0,0],[1,1],[1,0],[0,1]]", "meet"),
        ("[[zones]]\nname='a'\npoints = [[0,0],[0.5,0.5],[1,1]]", "meet"),
        ("[[zones]]\nname='a'\npoints = [[0,0],[1],[1,1]]", "expected a list of points"),
        ("[[zones]]\nname='a'\nkind = 'in'\npoints = [[0,0],[1,0],[1,1]]", "\"include\" or \"exclude\""),
        ("a = [", "1: not TOML: "),
        ("a = 1\na = 2", "2: not TOML: "),
    ] {
        let said = problems(text);
        assert!(said.iter().any(|problem| problem.contains(words)), "{text}: {said:?}");
    }
}

#[test]
fn what_files_hold_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (content, keys, words) in [
        ("\n", "username = 'u'\npassword_file", "4: [mqtt] password_file: password file"),
        ("no PEM", "tls = true\nca", "3: [mqtt] tls: "),
    ] {
        std::fs::write(&file, content).unwrap();
        let said = problems(&format!("[mqtt]\nenabled = true\n{keys} = '{}'", file.display()));
        assert!(said.len() == 1 && said[0].starts_with(words), "{said:?}");
    }
}

proptest::proptest! {
    /// Whatever a file holds, it is read or refused.
    #[test]
    fn no_text_is_too_much(words in proptest::collection::vec(0usize..24, 0..40)) {
        let known = [
            "[model]", "[source]", "[mqtt]", "[[zones]]", "[classes.a]", "[events]", "\n", " = ", "'", "[", "]",
            "conf", "fps", "points", "name", "1", "-1e300", "nan", "[[0,0],[1,0],[1,1]]", "true", "\"", "{", ",",
            "9999999999999999999",
        ];
        let text: String = words.iter().map(|&word| known[word]).collect();
        if let Err(problems) = load_text(&text, Vec::new()) {
            assert!(!problems.is_empty());
        }
    }
}

#[test]
fn a_flag_goes_before_the_file_and_is_named() {
    let flag = |value| Override { section: "model", key: "conf", value, place: Place::Flag("--conf") };
    let text = "[model]\nconf = 0.5\niou = 0.6\n";
    let Loaded { config, entries } = load_text(text, vec![flag(value::Value::Number(0.75))]).unwrap();
    assert_eq!((config.detection.conf, config.detection.iou), (0.75, 0.6));
    let mut printed = Vec::new();
    print::write(&entries, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    for line in
        ["conf = 0.75  # --conf\n", "max_det = 300  # default\n", "# imgsz =  # default: the model's\n"]
    {
        assert!(printed.contains(line), "{printed}");
    }
    assert!(printed.contains("iou = 0.6  # ") && printed.contains("g.toml:3\n"), "{printed}");
}

#[test]
fn what_is_printed_reads_as_the_same_configuration() {
    let text = "device = 'yard'\n[model]\nclasses = ['a\"b']\nimgsz = '384x640'\n[source]\nurl = '-'\nloop = true\n\
                [classes.'traffic light']\nconfidence = 0.5\n\
                [[zones]]\nname = 'z'\nkind = 'exclude'\npoints = [[0, 0], [1, 0], [0.5, 1]]\nclasses = ['a']\n\
                [[zones]]\nname = 'y'\npoints = [[0, 0], [1, 0], [0.5, 1]]\n";
    let Loaded { config, entries } = load_text(text, Vec::new()).unwrap();
    let mut printed = Vec::new();
    print::write(&entries, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    let again = load_text(&printed, Vec::new()).unwrap_or_else(|e| panic!("{printed}\n{e:?}"));
    assert_eq!(again.config, config);
}

/// The example has every key, each with its default, in comments that hold once the `#` is taken away.
#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = include_str!("../../systemd/ghostlight.toml");
    let shown = load_text(example, Vec::new()).expect("the example is sound as it stands").entries;
    let defaults = load(None, Vec::new()).unwrap().entries;
    let list = |entries: &[Entry]| -> BTreeMap<String, Option<String>> {
        entries.iter().map(|e| (format!("{} {}", e.header, e.key), e.value.clone())).collect()
    };
    let mut as_it_stands = list(&defaults);
    as_it_stands.insert("[mqtt] enabled".into(), Some("true".into()));
    assert_eq!(list(&shown), as_it_stands, "as it stands, the example only has a broker");
    let mut header = String::new();
    let mut found = BTreeMap::new();
    for line in example.lines() {
        if line.starts_with('[') || line.starts_with("#[") {
            header = line.trim_start_matches('#').to_owned();
        } else if let Some((key, value)) = line.trim_start_matches('#').split_once(" = ")
            && !line.starts_with("# ")
        {
            found.insert(format!("{header} {key}"), value.to_owned());
        }
    }
    for (key, value) in list(&defaults) {
        let written = found.get(&key).unwrap_or_else(|| panic!("{key} is not in the example"));
        assert!(
            key == "[mqtt] enabled" || value.as_ref().is_none_or(|value| value == written),
            "{key}: {written}, default {value:?}"
        );
    }
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let problems = load_text(&uncommented, Vec::new()).err().unwrap_or_default();
    let unknown: Vec<_> = problems.iter().filter(|p| p.cause.contains("no such key")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn classes_are_looked_up_in_the_model() {
    let known = ["empty", "occupied"].map(String::from);
    let text = "[model]\nclasses = ['ocupied']\n[classes.emty]\nconfidence = 0.5\n\
                [[zones]]\nname = 'a'\npoints = [[0,0],[1,0],[1,1]]\nclasses = ['car']\n";
    let loaded = load_text(text, Vec::new()).unwrap();
    let problems: Vec<String> = loaded.watch(&known).unwrap_err().iter().map(ToString::to_string).collect();
    for (problem, words) in problems.iter().zip([
        ":2: [model] classes: this model has no class 'ocupied'; did you mean 'occupied'?",
        ":4: [classes.emty] confidence: this model has no class 'emty'; did you mean 'empty'?",
        ":8: [[zones]] 1 classes: this model has no class 'car'; it knows empty, occupied",
    ]) {
        assert!(problem.contains(words), "{problem}");
    }
    assert_eq!(problems.len(), 3);

    let text =
        "[model]\nconf = 0.4\n[classes.occupied]\nconfidence = 0.2\n[classes.empty]\nconfidence = 0.9\n";
    let watch = load_text(text, Vec::new()).unwrap().watch(&known).unwrap();
    assert_eq!(watch.nms.confidence, 0.2, "the network keeps what any class may need");
    let least: Vec<(usize, f32)> = watch.rules.classes.iter().map(|c| (c.id, c.min_confidence)).collect();
    assert_eq!(least, [(0, 0.9), (1, 0.2)]);

    let text = "[model]\nclasses = ['occupied']\n[classes.empty]\nconfidence = 0.9\n";
    let problems = load_text(text, Vec::new()).unwrap().watch(&known).unwrap_err();
    assert!(problems[0].to_string().contains("is not among [model] classes"), "{problems:?}");
}
