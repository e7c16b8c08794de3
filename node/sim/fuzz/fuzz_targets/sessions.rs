#![no_main]

quorate_fuzz::target!(quorate_decoders::sessions);
