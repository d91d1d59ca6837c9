//! Anonymous shared memory.
