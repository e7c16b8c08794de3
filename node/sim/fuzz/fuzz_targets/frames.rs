#![no_main]

quorate_fuzz::target!(quorate_transport_testing::decoding::frames);
