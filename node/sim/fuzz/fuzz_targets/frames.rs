#![no_main]

quorate_fuzz::target!(quorate_transport::decoding::frames);
