#![no_main]

quorate_fuzz::target!(quorate_kv::decoding::kv_snapshot);
