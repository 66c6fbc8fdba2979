use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::daemon::slot::Taken;

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A source that follows a script.
struct Script(VecDeque<Step>);

enum Step {
    Frame(u64),
    End,
    Broken,
}

impl Source for Script {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Next, SourceError> {
        match self.0.pop_front() {
            Some(Step::Frame(sequence)) => {
                frame.sequence = sequence;
                Ok(Next::Frame)
            }
            Some(Step::End) => Ok(Next::End),
            Some(Step::Broken) => {
                Err(SourceError::Read { name: "camera".into(), error: std::io::Error::other("unplugged") })
            }
            None => Ok(Next::Nothing),
        }
    }

    fn live(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "a script".into()
    }
}

type Opening = Result<Vec<Step>, SourceError>;

struct Test {
    slot: Arc<Slot>,
    orders: Arc<Orders>,
    events: Receiver<Event>,
    thread: std::thread::JoinHandle<()>,
}

/// A capture thread whose attempts to open give what stands in the list.
fn start(openings: Vec<Opening>) -> Test {
    let mut openings: VecDeque<Opening> = openings.into();
    let open: Opener = Box::new(move |_| match openings.pop_front() {
        Some(Ok(steps)) => Ok(Box::new(Script(steps.into())) as Box<dyn Source>),
        Some(Err(error)) => Err(error),
        None => Err(absent("no more")),
    });
    let config = crate::config::load(None, Vec::new()).unwrap().config;
    let slot = Arc::new(Slot::default());
    let orders = Arc::new(Orders::new(config.source, Arc::new(Metrics::new(Vec::new()))));
    let (sender, events) = channel();
    let notifier = Arc::new(Notifier::new(None, None));
    let capture =
        Capture { open, slot: Arc::clone(&slot), orders: Arc::clone(&orders), events: sender, notifier };
    let thread = std::thread::spawn(move || capture.run());
    Test { slot, orders, events, thread }
}

fn absent(cause: &str) -> SourceError {
    SourceError::Absent { name: "camera".into(), cause: cause.into() }
}

fn unfit() -> SourceError {
    SourceError::Unfit { name: "camera".into(), cause: "no such format".into() }
}

fn event(test: &Test) -> String {
    match test.events.recv_timeout(LIMIT).unwrap() {
        Event::Opened(what) => format!("opened {what}"),
        Event::Lost(cause) => format!("lost {cause}"),
        Event::Unfit(cause) => format!("unfit {cause}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn gaps_are_counted_and_the_end_is_told() {
    let steps = vec![Step::Frame(7), Step::Frame(8), Step::Frame(12), Step::End];
    let test = start(vec![Ok(steps)]);
    assert_eq!(event(&test), "opened a script");
    test.thread.join().unwrap();
    let mut frame = Frame::default();
    // Three frames came; two gave way, and three never came.
    let taken = test.slot.take(&mut frame, LIMIT);
    assert!(matches!(taken, Taken::Frame { lost: 5, .. }), "{taken:?}");
    assert_eq!((frame.sequence, test.slot.take(&mut frame, LIMIT)), (12, Taken::Ended));
}

#[test]
fn a_source_that_goes_away_is_opened_again_and_told_once() {
    let test = start(vec![
        Err(absent("unplugged")),
        Err(absent("unplugged")),
        Ok(vec![Step::Frame(0), Step::Broken]),
        // Even a fault that trying does not remove: the camera was open once.
        Err(unfit()),
        Ok(vec![Step::Frame(0), Step::End]),
    ]);
    for expected in
        ["lost camera: unplugged", "opened a script", "lost camera: unplugged", "lost camera: no such format"]
    {
        assert_eq!(event(&test), expected);
        // No need to wait for the longest delay.
        if expected.ends_with("format") {
            let config = crate::config::load(None, Vec::new()).unwrap().config;
            test.orders.change(config.source);
        }
    }
    assert_eq!(event(&test), "opened a script");
    test.thread.join().unwrap();
    assert!(test.events.try_recv().is_err(), "nothing is told twice");
}

#[test]
fn a_source_that_never_fits_is_the_end() {
    let test = start(vec![Err(unfit())]);
    assert_eq!(event(&test), "unfit camera: no such format");
    test.thread.join().unwrap();
    assert_eq!(test.slot.take(&mut Frame::default(), LIMIT), Taken::Ended);
}

#[test]
fn stopping_does_not_wait_for_a_camera() {
    let test = start(vec![Ok(vec![])]);
    assert_eq!(event(&test), "opened a script");
    test.orders.stop();
    test.thread.join().unwrap();
}
