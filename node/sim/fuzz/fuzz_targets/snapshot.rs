#![no_main]

quorate_fuzz::target!(quorate_storage::decoding::snapshot);
