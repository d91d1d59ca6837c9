//! Direct use of an epoll descriptor: exclusive wake-ups, which mio does not offer.
