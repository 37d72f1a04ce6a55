//! What comes back from disk, in any order.

use super::*;

/// Every order of `records`, by Heap's algorithm.
fn orders(records: &[LogRecord<Item>]) -> Vec<Vec<LogRecord<Item>>> {
    fn permute(k: usize, records: &mut Vec<LogRecord<Item>>, all: &mut Vec<Vec<LogRecord<Item>>>) {
        if k <= 1 {
            all.push(records.clone());
            return;
        }
        for i in 0..k {
            permute(k - 1, records, all);
            let swapped = if k.is_multiple_of(2) { i } else { 0 };
            records.swap(swapped, k - 1);
        }
    }
    let mut all = Vec::new();
    permute(records.len(), &mut records.to_vec(), &mut all);
    all
}

#[test]
fn any_order_of_records_gives_the_same_state() {
    let records = [
        LogRecord::Round { round: 2 },
        LogRecord::Round { round: 8 },
        promise_record(ballot(3, 2)),
        accept_record(SLOT, ballot(4, 3), plain('a')),
        accept_record(SLOT - 1, ballot(6, 2), plain('z')),
        accept_record(SLOT, ballot(5, 3), plain('b')),
    ];
    let all = orders(&records);
    assert_eq!(all.len(), 720);
    for order in all {
        let mut log = log(1);
        for record in order {
            log.restore(record);
        }
        // An entry of an earlier slot leaves its promise.
        let low = hear(&mut log, 1, prepare(SLOT, ballot(6, 1)));
        let refused = nack(SLOT, ballot(6, 1), ballot(6, 2));
        assert_eq!(low, answers(1, refused));
        let again = hear(&mut log, 2, prepare(SLOT, ballot(6, 2)));
        let held = Some((ballot(5, 3), plain('b')));
        assert_eq!(again, answers(2, promise(SLOT, ballot(6, 2), held)));
        let (_, effects) = until_it_acts(&mut log);
        assert_eq!(effects, starts(SLOT, ballot(9, 1)));
    }
}

/// An entry that was accepted, and nothing else, is a promise too, and needs no save again.
#[test]
fn an_entry_that_comes_back_is_held() {
    let mut log = log(1);
    log.restore(accept_record(SLOT, ballot(4, 2), plain('a')));
    let again = hear(&mut log, 2, accept(SLOT, ballot(4, 2), plain('a')));
    assert_eq!(again, answers(2, accepted(SLOT, ballot(4, 2))));
    let low = hear(&mut log, 3, accept(SLOT, ballot(3, 3), plain('b')));
    let refused = nack(SLOT, ballot(3, 3), ballot(4, 2));
    assert_eq!(low, answers(3, refused));
}

/// Whatever it goes through, a replica that comes back says what it would have said.
#[test]
fn to_restart_is_to_lose_no_more_than_the_role() {
    let mut log = log(1);
    let mut saved = Vec::new();
    let script = [
        (2, prepare(SLOT, ballot(1, 2))),
        (2, accept(SLOT, ballot(1, 2), plain('a'))),
        (3, prepare(SLOT, ballot(2, 3))),
        (3, accept(SLOT, ballot(2, 3), plain('a'))),
        (2, chosen(SLOT, plain('a'))),
        (3, accept(SLOT + 1, ballot(2, 3), plain('b'))),
        (2, prepare(SLOT + 1, ballot(4, 2))),
    ];
    for (from, message) in script {
        saved.extend(hear(&mut log, from, message).save);
        let mut restarted = Log::new(id(1), CONFIG, log.slot(), acceptors(&[1, 2, 3]));
        for record in &saved {
            restarted.restore(record.clone());
        }
        for probe in [
            ballot(1, 2),
            ballot(2, 2),
            ballot(3, 2),
            ballot(4, 2),
            ballot(5, 2),
        ] {
            let asked = prepare(log.slot(), probe);
            let expected = hear(&mut log.clone(), 2, asked.clone());
            assert_eq!(hear(&mut restarted.clone(), 2, asked), expected);
        }
    }
    assert_eq!(saved.len(), 6);
}
