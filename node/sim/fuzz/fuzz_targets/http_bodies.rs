#![no_main]

quorate_fuzz::target!(quorate_kv::decoding::http_bodies);
