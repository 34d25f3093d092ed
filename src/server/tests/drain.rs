//! Several workers, and the end of them: what has come is served, what is new is not let in, what lasts is
//! cut.

use super::*;

#[test]
fn every_worker_serves_on_the_same_port_with_a_handler_of_its_own() {
    let server = TestServer::with(2, |_| {});
    // The kernel spreads connections by their addresses; a few hundred always meet both workers.
    for _ in 0..300 {
        assert!(server.ask("GET /w HTTP/1.0\r\n\r\n").ends_with("/w "));
        if server.script.responded_by.lock().unwrap().len() == 2 {
            break;
        }
    }
    assert_eq!(server.script.responded_by.lock().unwrap().len(), 2);
    assert_eq!(server.script.handlers_made.load(Ordering::SeqCst), 2);
    assert_eq!(server.drain(), DrainReport::default());
}

#[test]
fn a_drain_finishes_what_runs_serves_what_was_accepted_and_lets_nobody_in() {
    let server = TestServer::start(limits());
    let addr = server.addr;
    let mut busy = server.caller();
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    let [mut idle, mut kept] = [server.caller(), server.caller()];
    for caller in [&mut idle, &mut kept] {
        caller.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        caller.response();
    }
    eventually("all are heard", || server.requests() == 3);
    let mut fresh = server.caller();
    eventually("four are open", || server.counters.open.get() == 4);

    server.workers.drain();
    eventually("a caller that goes on is told to stop", || {
        kept.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        kept.response().0.contains("connection: close")
    });
    fresh.send("GET /fresh HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = fresh.rest();
    assert!(response.contains("connection: close") && response.ends_with("/fresh "), "{response:?}");
    assert!(TcpStream::connect(addr).is_err(), "nobody else is let in");
    assert_eq!(idle.rest(), "", "the idle one goes after a moment");

    server.script.permits.add_permits(1);
    let response = busy.rest();
    assert!(response.contains("connection: close") && response.ends_with("waited"), "{response:?}");
    assert_eq!(server.drain(), DrainReport::default());
}

#[test]
fn connections_that_wait_in_the_kernel_are_served_on_a_drain() {
    // The worker cannot accept while its thread is held, so these connections queue up.
    let server = TestServer::start(limits());
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let mut listeners = Listeners::new(1);
    listeners
        .listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Plain, &mut InheritedSockets::none())
        .unwrap();
    let addr = listeners.addrs(ListenerKind::Plain)[0];
    struct Late<F>(Arc<HandlerScript>, F);
    impl<F: Fn() + Send + Sync + 'static> MakeHandler for Late<F> {
        type Handler = ScriptedHandler;
        fn make(&self, worker: usize) -> ScriptedHandler {
            self.1();
            ScriptedHandler { script: self.0.clone(), worker }
        }
    }
    let wait = move || held.lock().unwrap().recv().unwrap();
    let options = ServerOptions {
        name: "late",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        forward_proxy: None,
        counters: server.counters.clone(),
    };
    let workers = Workers::start(listeners, options, Arc::new(Late(server.script.clone(), wait))).unwrap();
    let mut callers: Vec<TestCaller> = (0..20).map(|_| TestCaller::to(addr)).collect();
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
    let server = TestServer::start(ServerLimits { drain_timeout: Duration::from_millis(50), ..limits() });
    let mut caller = server.caller();
    caller.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is heard", || server.requests() == 1);
    let script = server.script.clone();
    assert_eq!(server.drain(), DrainReport { cut: 1, lost_workers: 0 });
    assert_eq!(script.cancelled.load(Ordering::SeqCst), 1);
    assert!(caller.rest_and_failure().1.is_some());
}

#[test]
fn a_second_signal_stops_at_once() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is heard", || server.requests() == 1);
    let began = Instant::now();
    let report = runtime().block_on(server.workers.run_until(ready(()), ready(())));
    assert_eq!(report.cut, 1);
    assert!(began.elapsed() < TEST_TIMEOUT / 2);
}

#[test]
fn a_worker_that_fails_takes_the_others_into_a_drain() {
    struct Fails;
    impl MakeHandler for Fails {
        type Handler = ScriptedHandler;
        fn make(&self, worker: usize) -> ScriptedHandler {
            assert_ne!(worker, 1, "as the test asked");
            ScriptedHandler { script: Arc::new(HandlerScript::new()), worker }
        }
    }
    let mut listeners = Listeners::new(2);
    listeners
        .listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Plain, &mut InheritedSockets::none())
        .unwrap();
    let options = ServerOptions {
        name: "fails",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        forward_proxy: None,
        counters: Arc::default(),
    };
    let mut workers = Workers::start(listeners, options, Arc::new(Fails)).unwrap();
    assert_eq!(runtime().block_on(workers.ended()), DrainReport { cut: 0, lost_workers: 1 });
}
