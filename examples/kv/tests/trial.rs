//! The service under the trial of services: equal to its twin and to a plain map, while keys
//! expire.

use quorate::At;
use quorate_kv::machine::{
    Command, Compare, Holds, Key, Kv, Operation, OperationReply, Reply, TXN_READ_BYTES_MAX, Txn, TxnReply, Value,
};
use quorate_trial::{Rng, Trial};
use std::collections::BTreeMap;

#[test]
fn the_map_keeps_its_promises() {
    Trial::new(Kv::default)
        .commands(|rng, _| command(rng))
        .queries(key)
        .model(Model::default, |model, command, reply, at| {
            let expected = model.execute(command, at);
            if expected == *reply { Ok(()) } else { Err(format!("{reply:?} instead of {expected:?}")) }
        })
        .run();
}

/// A plain map, with the log time at which each key expires.
#[derive(Default)]
struct Model(BTreeMap<Key, (Value, Option<u64>)>);

impl Model {
    fn execute(&mut self, command: &Command, at: &At) -> Reply {
        self.0.retain(|_, (_, until)| until.is_none_or(|until| until > at.time.0));
        match command {
            Command::Put { key, value, ttl_ms } => {
                let until = ttl_ms.map(|ttl_ms| at.time.0 + ttl_ms);
                self.0.insert(key.clone(), (value.clone(), until));
                Reply::Put
            }
            Command::Delete { key } => Reply::Delete { existed: self.0.remove(key).is_some() },
            Command::Cas { key, expect, value } => {
                let swapped = self.get(key) == expect.as_ref();
                if swapped {
                    self.0.insert(key.clone(), (value.clone(), None));
                }
                Reply::Cas { swapped }
            }
            Command::Txn(txn) => Reply::Txn(self.transact(txn)),
        }
    }

    fn transact(&mut self, txn: &Txn) -> TxnReply {
        let succeeded = txn.compare.iter().all(|compare| match (&compare.holds, self.get(&compare.key)) {
            (Holds::Nothing, found) => found.is_none(),
            (Holds::Something, found) => found.is_some(),
            (Holds::Value(value), found) => found == Some(value),
        });
        let operations = if succeeded { &txn.success } else { &txn.failure };
        let results = operations.iter().map(|operation| match operation {
            Operation::Put { key, value } => {
                self.0.insert(key.clone(), (value.clone(), None));
                OperationReply::Put
            }
            Operation::Delete { key } => OperationReply::Delete { existed: self.0.remove(key).is_some() },
            Operation::Get { key } => OperationReply::Get { value: self.get(key).cloned() },
        });
        let results: Vec<_> = results.collect();
        assert!(results.iter().map(OperationReply::bytes).sum::<usize>() < TXN_READ_BYTES_MAX, "values are short");
        TxnReply::Done { succeeded, results }
    }

    fn get(&self, key: &Key) -> Option<&Value> {
        self.0.get(key).map(|(value, _)| value)
    }
}

fn command(rng: &mut Rng) -> Command {
    match rng.below(6) {
        0 => Command::Delete { key: key(rng) },
        1 => Command::Cas { key: key(rng), expect: rng.coin().then(|| value(rng)), value: value(rng) },
        2 => {
            let compare = (0..rng.below(3)).map(|_| Compare { key: key(rng), holds: holds(rng) }).collect();
            Command::Txn(Txn { compare, success: operations(rng), failure: operations(rng) })
        }
        _ => {
            let ttl_ms = rng.coin().then(|| rng.between(1..=5_000));
            Command::Put { key: key(rng), value: value(rng), ttl_ms }
        }
    }
}

fn holds(rng: &mut Rng) -> Holds {
    match rng.below(3) {
        0 => Holds::Nothing,
        1 => Holds::Something,
        _ => Holds::Value(value(rng)),
    }
}

fn operations(rng: &mut Rng) -> Vec<Operation> {
    let operation = |rng: &mut Rng| match rng.below(3) {
        0 => Operation::Put { key: key(rng), value: value(rng) },
        1 => Operation::Delete { key: key(rng) },
        _ => Operation::Get { key: key(rng) },
    };
    (0..rng.below(4)).map(|_| operation(rng)).collect()
}

fn key(rng: &mut Rng) -> Key {
    (*rng.pick(&["a", "b", "c", "d"])).into()
}

fn value(rng: &mut Rng) -> Value {
    // Short ones are equal often; a long one is not part of its event.
    let bytes = if rng.one_in(20) { 5_000 } else { rng.below(2) as usize };
    vec![rng.below(2) as u8; bytes].into()
}
