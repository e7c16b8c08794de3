#![no_main]

quorate_fuzz::target!(quorate::decoding::sessions);
