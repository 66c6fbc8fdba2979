use super::*;

fn options() -> Options {
    Options::new("yard", vec!["person".into()])
}

#[test]
fn each_wrong_option_has_its_error() {
    assert!(options().check().is_ok());
    type Change = fn(&mut Options);
    let cases: [(Change, &str); 11] = [
        (|o| o.device = String::new(), "device \"\""),
        (|o| o.device = "a/b".into(), "device \"a/b\""),
        (|o| o.device = "x".repeat(65), "device \"xxx"),
        (|o| o.host = "mqtt://host".into(), "host \"mqtt://host\""),
        (|o| o.port = 0, "port 0"),
        (|o| o.outbox = 0, "outbox 0"),
        (|o| o.keep_alive = Duration::from_millis(999), "keep-alive of 0 s"),
        (|o| (o.version, o.keep_alive) = (Version::V5, Duration::from_secs(4)), "give 5 to 65535 s"),
        (|o| o.max_packet = 10, "packets of at most 10 bytes"),
        (|o| o.home_assistant = Some("ha/#".into()), "discovery prefix \"ha/#\""),
        (|o| o.home_assistant = Some("ha/".into()), "discovery prefix \"ha/\""),
    ];
    for (change, expected) in cases {
        let mut wrong = options();
        change(&mut wrong);
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_password_is_one_line_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let mut options = options();
    assert_eq!(options.login().unwrap(), None);
    options.credentials = Some(Credentials { username: "me".into(), password_file: Some(path.clone()) });
    assert!(matches!(options.login(), Err(OptionsError::PasswordFile { .. })));
    fs::write(&path, "\n").unwrap();
    assert!(matches!(options.login(), Err(OptionsError::PasswordEmpty { .. })));
    fs::write(&path, [b'x'; 5000]).unwrap();
    assert!(matches!(options.login(), Err(OptionsError::PasswordTooLong { found: 5000, .. })));
    fs::write(&path, " secret \r\n").unwrap();
    assert_eq!(options.login().unwrap(), Some(("me".into(), " secret ".into())));
}

#[test]
fn slugs_are_distinct_and_plain() {
    let names = ["person", "Traffic light", "traffic-light", "\u{e9}", "a+b/#"].map(String::from);
    assert_eq!(slugs(&names), ["person", "traffic_light_1", "traffic_light_2", "__3", "a_b__"]);
}
