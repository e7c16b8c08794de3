#![no_main]

quorate_fuzz::target!(quorate_storage_testing::decoding::slots);
