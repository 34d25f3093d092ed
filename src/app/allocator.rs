//! How the system's allocator treats memory that is given back. Out of the box it returns a freed buffer of
//! some ten kilobytes to the system at once, so that every larger response pays for fresh pages again: more
//! than a quarter of what one of 200 KB costs (`docs/benchmarks.md`, "Figures").

/// What a thread's heap keeps for the next large responses: a dozen at once with their buffers.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 4 * 1024 * 1024;

/// To be called before there are threads. An operator's own `GLIBC_TUNABLES` are overruled, for these three
/// alone.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_buffers() {
    let settings = [
        (libc::M_TRIM_THRESHOLD, KEPT),
        // Below this size a buffer comes from the heap and not from a mapping of its own.
        (libc::M_MMAP_THRESHOLD, KEPT),
        // The bins of an older design, which are swept whenever a large block is freed; what is small has
        // each thread's own cache.
        (libc::M_MXFAST, 0),
    ];
    for (parameter, value) in settings {
        // SAFETY: takes two numbers, and is called while there is one thread. What is refused stays as it
        // was, which is only slower.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is free now, for once: what a start with many accounts needed and no call will.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: locks the heaps by itself, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_buffers() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
