//! Several workers, and the end of them: what has come is served, what is new is not let in, what lasts is cut.

use super::*;

#[test]
fn every_worker_serves_on_the_same_port_with_a_handler_of_its_own() {
    let site = Site::with(2, |_| {});
    // The kernel spreads connections by their addresses; a few hundred always meet both workers.
    for _ in 0..300 {
        assert!(site.ask("GET /w HTTP/1.0\r\n\r\n").ends_with("/w "));
        if site.script.responded_by.lock().unwrap().len() == 2 {
            break;
        }
    }
    assert_eq!(site.script.responded_by.lock().unwrap().len(), 2);
    assert_eq!(site.script.made.load(Ordering::SeqCst), 2);
    assert_eq!(site.drain(), DrainReport::default());
}

#[test]
fn a_drain_finishes_what_runs_serves_what_was_accepted_and_lets_nobody_in() {
    let site = Site::start(limits());
    let addr = site.addr;
    let mut busy = site.caller();
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    let [mut idle, mut kept] = [site.caller(), site.caller()];
    for caller in [&mut idle, &mut kept] {
        caller.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        caller.response();
    }
    eventually("all are heard", || site.heard() == 3);
    let mut fresh = site.caller();
    eventually("four are open", || site.counters.open.get() == 4);

    site.workers.drain();
    eventually("a caller that goes on is told to stop", || {
        kept.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        kept.response().0.contains("connection: close")
    });
    fresh.send("GET /fresh HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = fresh.rest();
    assert!(response.contains("connection: close") && response.ends_with("/fresh "), "{response:?}");
    assert!(TcpStream::connect(addr).is_err(), "nobody else is let in");
    assert_eq!(idle.rest(), "", "the idle one goes after a moment");

    site.script.go.add_permits(1);
    let response = busy.rest();
    assert!(response.contains("connection: close") && response.ends_with("waited"), "{response:?}");
    assert_eq!(site.drain(), DrainReport::default());
}

#[test]
fn connections_that_wait_in_the_kernel_are_served_on_a_drain() {
    // The worker cannot accept while its thread is held, so these connections queue up.
    let site = Site::start(limits());
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let mut listeners = Listeners::new(1);
    listeners.listen("127.0.0.1:0".parse().unwrap(), false, &mut Inherited::none()).unwrap();
    let addr = listeners.plain_addrs()[0];
    struct Late<F>(Arc<Script>, F);
    impl<F: Fn() + Send + Sync + 'static> MakeHandler for Late<F> {
        type Handler = Scripted;
        fn make(&self, worker: usize) -> Scripted {
            self.1();
            Scripted { script: self.0.clone(), worker }
        }
    }
    let wait = move || held.lock().unwrap().recv().unwrap();
    let options = Options {
        name: "late",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        counters: site.counters.clone(),
    };
    let workers = Workers::start(listeners, options, Arc::new(Late(site.script.clone(), wait))).unwrap();
    let mut callers: Vec<Caller> = (0..20).map(|_| Caller::to(addr)).collect();
    for caller in &mut callers {
        caller.send("GET /queued HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    workers.drain();
    hold.send(()).unwrap();
    for caller in &mut callers {
        assert!(caller.rest().ends_with("/queued "));
    }
    let report = runtime().block_on(workers.run_until(ready(()), pending::<()>()));
    assert_eq!(report, DrainReport::default());
}

#[test]
fn what_outlasts_the_drain_is_cut_and_counted() {
    let site = Site::start(Limits { drain_timeout: Duration::from_millis(50), ..limits() });
    let mut caller = site.caller();
    caller.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is heard", || site.heard() == 1);
    let script = site.script.clone();
    assert_eq!(site.drain(), DrainReport { cut: 1, lost_workers: 0 });
    assert_eq!(script.cancelled.load(Ordering::SeqCst), 1);
    assert!(caller.rest_and_failure().1.is_some());
}

#[test]
fn a_second_signal_stops_at_once() {
    let site = Site::start(limits());
    let mut caller = site.caller();
    caller.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is heard", || site.heard() == 1);
    let began = Instant::now();
    let report = runtime().block_on(site.workers.run_until(ready(()), ready(())));
    assert_eq!(report.cut, 1);
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn a_worker_that_fails_takes_the_others_into_a_drain() {
    struct Fails;
    impl MakeHandler for Fails {
        type Handler = Scripted;
        fn make(&self, worker: usize) -> Scripted {
            assert_ne!(worker, 1, "as the test asked");
            Scripted { script: Arc::new(Script::new()), worker }
        }
    }
    let mut listeners = Listeners::new(2);
    listeners.listen("127.0.0.1:0".parse().unwrap(), false, &mut Inherited::none()).unwrap();
    let options = Options {
        name: "fails",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        counters: Arc::default(),
    };
    let mut workers = Workers::start(listeners, options, Arc::new(Fails)).unwrap();
    assert_eq!(runtime().block_on(workers.ended()), DrainReport { cut: 0, lost_workers: 1 });
}
