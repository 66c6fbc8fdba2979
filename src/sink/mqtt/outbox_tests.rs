use proptest::prelude::*;

use super::*;
use crate::sink::mqtt::Options;

const START: Duration = Duration::from_secs(1);

fn outbox(qos: Qos, capacity: usize) -> (Outbox, SlotId) {
    let topics = Topics::of(&Options::new("yard", vec![]));
    let mut outbox = Outbox::new(&topics, qos, capacity, 1000);
    let state = outbox.slot(topics.state);
    (outbox, state)
}

/// Takes and writes all that is due; the payloads. Packet ids follow `first`.
fn drain(outbox: &mut Outbox, now: Instant, first: u16) -> Vec<String> {
    let mut sent = Vec::new();
    let mut packet = first;
    while let Some(message) = outbox.next(now) {
        sent.push(String::from_utf8(message.payload.to_vec()).unwrap());
        outbox.written(if message.qos == Qos::AtMostOnce { 0 } else { packet }, now);
        packet += 1;
    }
    sent
}

fn assert_sum(counts: Counts) {
    let Counts { accepted, delivered, dropped, refused, unconfirmed, queued, in_flight, .. } = counts;
    assert_eq!(accepted, delivered + dropped + refused + unconfirmed + queued + in_flight, "{counts:?}");
}

#[test]
fn a_full_ring_drops_its_oldest_and_counts_it() {
    let (mut outbox, _) = outbox(Qos::AtMostOnce, 2);
    for line in ["a", "b", "c", "d"] {
        outbox.push(line.as_bytes());
    }
    outbox.push(&[b'x'; 2000]);
    let counts = outbox.counts();
    assert_eq!((counts.accepted, counts.dropped, counts.refused, counts.queued), (5, 2, 1, 2));
    outbox.connected(None);
    assert_eq!(drain(&mut outbox, Instant::now(), 1), ["online", "c", "d"]);
}

#[test]
fn acknowledgements_and_pings_confirm_what_was_written_before() {
    let (mut outbox, state) = outbox(Qos::AtMostOnce, 9);
    outbox.connected(None);
    let now = Instant::now();
    drain(&mut outbox, now, 1);
    outbox.push(b"a");
    drain(&mut outbox, now, 2);
    outbox.pinged();
    outbox.push(b"b");
    drain(&mut outbox, now, 2);
    assert_eq!((outbox.counts().delivered, outbox.counts().in_flight), (0, 2));
    outbox.ponged();
    assert_eq!((outbox.counts().delivered, outbox.counts().in_flight), (1, 1));
    outbox.set_state(state, b"{}".to_vec(), vec![]);
    drain(&mut outbox, now, 2);
    outbox.push(b"c");
    drain(&mut outbox, now, 3);
    outbox.acknowledged(2, true);
    assert_eq!((outbox.counts().delivered, outbox.counts().in_flight), (2, 1));
    outbox.disconnected();
    assert_eq!(outbox.counts().unconfirmed, 1);
    assert_sum(outbox.counts());
}

#[test]
fn unacknowledged_messages_return_in_order() {
    let (mut outbox, _) = outbox(Qos::AtLeastOnce, 9);
    outbox.connected(None);
    let now = Instant::now();
    for line in ["a", "b", "c", "d"] {
        outbox.push(line.as_bytes());
    }
    for packet in 1..=3 {
        outbox.next(now).unwrap();
        outbox.written(packet, now);
    }
    outbox.acknowledged(2, true);
    // `c` is handed over, not yet written; `b` is in flight.
    assert_eq!(&*outbox.next(now).unwrap().payload, b"c");
    outbox.push(b"e");
    outbox.disconnected();
    assert_eq!(outbox.counts().resent, 1);
    outbox.connected(None);
    assert_eq!(drain(&mut outbox, now, 1), ["online", "b", "c", "d", "e"]);
}

#[test]
fn the_state_waits_its_second_unless_presence_changes() {
    let (mut outbox, state) = outbox(Qos::AtMostOnce, 9);
    outbox.connected(None);
    let now = Instant::now();
    drain(&mut outbox, now, 1);
    outbox.set_state(state, b"1".to_vec(), vec![false]);
    assert_eq!(drain(&mut outbox, now, 2), ["1"]);
    outbox.set_state(state, b"2".to_vec(), vec![false]);
    outbox.set_state(state, b"3".to_vec(), vec![false]);
    assert!(drain(&mut outbox, now, 3).is_empty());
    assert_eq!(outbox.next_due(), Some(now + START));
    outbox.set_state(state, b"4".to_vec(), vec![true]);
    // The next picture must not put the change off again.
    outbox.set_state(state, b"5".to_vec(), vec![true]);
    assert_eq!(drain(&mut outbox, now, 3), ["5"]);
    outbox.set_state(state, b"6".to_vec(), vec![true]);
    assert_eq!(drain(&mut outbox, now + START, 4), ["6"]);
    outbox.disconnected();
    outbox.connected(None);
    assert_eq!(drain(&mut outbox, now + START * 2, 1), ["online", "6"]);
}

#[test]
fn a_message_that_kills_connections_is_given_up() {
    let (mut outbox, _) = outbox(Qos::AtLeastOnce, 9);
    outbox.push(b"poison");
    for _ in 0..ATTEMPTS {
        outbox.connected(None);
        assert_eq!(drain(&mut outbox, Instant::now(), 1), ["online", "poison"]);
        outbox.acknowledged(1, true);
        outbox.disconnected();
    }
    assert_eq!((outbox.counts().refused, outbox.counts().queued), (1, 0));
    assert_sum(outbox.counts());
}

#[test]
fn a_brokers_own_limit_is_kept() {
    let (mut outbox, _) = outbox(Qos::AtLeastOnce, 9);
    outbox.push(&[b'x'; 500]);
    outbox.push(b"small");
    outbox.connected(Some(100));
    assert_eq!(drain(&mut outbox, Instant::now(), 1), ["online", "small"]);
    assert_eq!(outbox.counts().refused, 1);
}

#[test]
fn closing_says_offline_last() {
    let (mut outbox, _) = outbox(Qos::AtLeastOnce, 9);
    outbox.connected(None);
    outbox.push(b"a");
    outbox.close();
    outbox.push(b"late");
    assert_eq!(drain(&mut outbox, Instant::now(), 1), ["online", "a", "offline"]);
    assert!(!outbox.is_done());
    for packet in 1..=3 {
        outbox.acknowledged(packet, true);
    }
    assert!(outbox.is_done());
    outbox.give_up();
    assert_eq!((outbox.counts().delivered, outbox.counts().dropped), (1, 1));
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    State,
    Next,
    Written,
    Acknowledged(usize, bool),
    Ping,
    Pong,
    Down,
    Up,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        1 => Just(Step::State),
        4 => Just(Step::Next),
        4 => Just(Step::Written),
        2 => (0usize..4, prop::bool::weighted(0.9)).prop_map(|(n, taken)| Step::Acknowledged(n, taken)),
        1 => Just(Step::Ping),
        1 => Just(Step::Pong),
        1 => Just(Step::Down),
        1 => Just(Step::Up),
    ]
}

proptest! {
    /// Whatever happens in whatever order, each message is counted once.
    #[test]
    fn the_sum_always_holds(
        steps in prop::collection::vec(step(), 0..300), at_least_once in any::<bool>(), capacity in 1usize..8
    ) {
        let qos = if at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let (mut outbox, state) = outbox(qos, capacity);
        let now = Instant::now();
        let (mut packet, mut handed) = (0u16, None);
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push => outbox.push(b"line"),
                Step::State => outbox.set_state(state, index.to_string().into_bytes(), vec![index % 2 == 0]),
                Step::Next => handed = outbox.next(now).or(handed),
                Step::Written => if let Some(message) = handed.take() {
                    packet += 1;
                    outbox.written(if message.qos == Qos::AtMostOnce { 0 } else { packet }, now);
                },
                Step::Acknowledged(back, taken) => {
                    let ids: Vec<u16> = outbox.in_flight.iter().map(|f| f.packet).collect();
                    if let Some(&id) = ids.get(back) {
                        outbox.acknowledged(id, taken);
                    }
                }
                Step::Ping => outbox.pinged(),
                Step::Pong => outbox.ponged(),
                Step::Down => { outbox.disconnected(); handed = None; }
                Step::Up => { outbox.disconnected(); handed = None; outbox.connected(None); }
            }
            assert_sum(outbox.counts());
            prop_assert!(outbox.ring.len() <= capacity);
        }
        outbox.give_up();
        let counts = outbox.counts();
        assert_sum(counts);
        prop_assert_eq!((counts.queued, counts.in_flight), (0, 0));
    }
}
