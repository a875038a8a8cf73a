package bench

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/attest/manifest"
)

// idleFor is how long an idle agent is watched.
const idleFor = 20 * time.Second

// agentProcess is the program as it is shipped, with a node of its own.
type agentProcess struct {
	cmd   *exec.Cmd
	node  *client.Client
	ready time.Duration // from the start of the process until it told systemd that it is ready
}

// startAgent starts the program on the world's state. Its end is told by the benchmark's.
func startAgent(b *testing.B, w *nodeWorld, program string, args ...string) *agentProcess {
	b.Helper()
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(b.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		b.Fatal(err)
	}
	defer notes.Close()
	socket := filepath.Join(b.TempDir(), "socket")
	p := &agentProcess{cmd: exec.Command(program, append([]string{
		"--socket", socket, "--policy", filepath.Join(w.dir, "policy"), "--trust", filepath.Join(w.dir, "trust"), "--state", filepath.Join(w.dir, "agent"),
		"--driver", "namespace", "--offline", "--content", w.content,
	}, args...)...)}
	var stderr bytes.Buffer
	p.cmd.Stderr = &stderr
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notes.LocalAddr().String())
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if err := notes.SetReadDeadline(began.Add(time.Minute)); err != nil {
		b.Fatal(err)
	}
	for note := make([]byte, 4096); ; {
		n, err := notes.Read(note)
		if err != nil {
			p.stop()
			b.Fatalf("the agent is not ready: %v\n%s", err, stderr.String())
		}
		if strings.Contains(string(note[:n]), "READY=1") {
			break
		}
	}
	p.ready = time.Since(began)
	if p.node, err = client.New(socket); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *agentProcess) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// resident is how much memory the process has, in MB, and how much of that no file backs.
func (p *agentProcess) resident(b *testing.B) (all, anonymous float64) {
	b.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		b.Fatal(err)
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(data), name+":")
		n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		return n * 1024 / 1e6
	}
	return field("VmRSS"), field("RssAnon")
}

// processor is the time that the process has used.
func (p *agentProcess) processor(b *testing.B) time.Duration {
	b.Helper()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/task/*/schedstat")
	var total time.Duration
	for _, t := range threads {
		if data, err := os.ReadFile(t); err == nil {
			n, _ := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
			total += time.Duration(n)
		}
	}
	if total == 0 {
		b.Fatalf("the kernel does not tell processor time: %v", err)
	}
	return total
}

// BenchmarkAgent starts the agent as it is shipped: how long the first start takes, which makes keys, a ledger and a store, and one after it; and
// what the agent costs while nothing happens. true-ms is how long this machine takes to start and end a process that does nothing.
func BenchmarkAgent(b *testing.B) {
	program := buildProgram(b, "../../cmd/arch-node-agent", "arch-node-agent")
	var first, later, nothing time.Duration
	var memory, anonymous, busy float64
	for range b.N {
		w := newNodeWorld(b)
		p := startAgent(b, w, program)
		first += p.ready
		p.stop()
		began := time.Now()
		if err := exec.Command("true").Run(); err != nil {
			b.Fatal(err)
		}
		nothing += time.Since(began)
		p = startAgent(b, w, program)
		later += p.ready
		time.Sleep(10 * time.Second) // the ledger rests when it has signed what the start wrote
		before := p.processor(b)
		time.Sleep(idleFor)
		busy += float64(p.processor(b)-before) / float64(idleFor) * 100
		all, anon := p.resident(b)
		memory, anonymous = memory+all, anonymous+anon
		p.stop()
	}
	n := float64(b.N)
	b.ReportMetric(first.Seconds()*1e3/n, "first-start-ms")
	b.ReportMetric(later.Seconds()*1e3/n, "start-ms")
	b.ReportMetric(nothing.Seconds()*1e3/n, "true-ms")
	b.ReportMetric(memory/n, "idle-MB")
	b.ReportMetric(anonymous/n, "idle-anon-MB")
	b.ReportMetric(busy/n, "idle-cpu-%")
	b.ReportMetric(0, "ns/op")
}

// queued is how many jobs wait in BenchmarkAgentQueue; ARCH_BENCH_QUEUE says another number.
const queued = 50_000

// BenchmarkAgentQueue hands in jobs to an agent that is drained, and says how much memory it has with all of them waiting, and after another start.
func BenchmarkAgentQueue(b *testing.B) {
	count := queued
	if n, err := strconv.Atoi(os.Getenv("ARCH_BENCH_QUEUE")); err == nil {
		count = n
	}
	program := buildProgram(b, "../../cmd/arch-node-agent", "arch-node-agent")
	for range b.N {
		w := newNodeWorld(b)
		w.allowQueue(b, count)
		p := startAgent(b, w, program)
		if err := p.node.Act(b.Context(), agent.Act{Verb: agent.VerbDrain, Reason: "to let jobs wait"}); err != nil {
			b.Fatal(err)
		}
		idle, _ := p.resident(b)
		began := time.Now()
		p.submit(b, w, count)
		took := time.Since(began)
		if status, err := p.node.Status(b.Context()); err != nil || status.Jobs[agent.Verified] != count {
			b.Fatalf("%v, %v", status.Jobs, err)
		}
		full, anonymous := p.resident(b)
		p.stop()
		p = startAgent(b, w, program, "--slots", "1")
		again, _ := p.resident(b)
		b.ReportMetric(idle, "idle-MB")
		b.ReportMetric(full, "queued-MB")
		b.ReportMetric(anonymous, "queued-anon-MB")
		b.ReportMetric(again, "restarted-MB")
		b.ReportMetric(p.ready.Seconds()*1e3, "restart-ms")
		b.ReportMetric(float64(count)/took.Seconds(), "submits/s")
		p.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// allowQueue lets the policy hold so many jobs.
func (w *nodeWorld) allowQueue(b *testing.B, count int) {
	b.Helper()
	policy := w.policy(manifest.PolicyQueue{Max: count + 1})
	if err := os.WriteFile(filepath.Join(w.dir, "policy"), w.sign(b, policy, "carol"), 0o600); err != nil {
		b.Fatal(err)
	}
}

// submit hands in jobs.
func (p *agentProcess) submit(b *testing.B, w *nodeWorld, count int) {
	b.Helper()
	next := make(chan int)
	var done sync.WaitGroup
	for range flying {
		done.Go(func() {
			for i := range next {
				if _, err := p.node.Submit(b.Context(), w.hello(b, i), ""); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range count {
		if b.Failed() {
			break
		}
		next <- i
	}
	close(next)
	done.Wait()
}
