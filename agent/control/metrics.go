package control

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
)

// stats counts requests. Its labels are fixed when it is made: what callers send never becomes one.
type stats struct {
	mu       sync.Mutex // guards what the maps point at; the maps themselves never change
	requests map[served]*uint64
	problems map[string]*uint64
	seconds  map[string]*float64
}

type served struct{ route, class string }

var classes = [...]string{"2xx", "3xx", "4xx", "5xx"}

func newStats(routes []route) *stats {
	s := &stats{requests: map[served]*uint64{}, problems: map[string]*uint64{}, seconds: map[string]*float64{}}
	for _, r := range routes {
		for _, c := range classes {
			s.requests[served{r.method + " " + r.path, c}] = new(uint64)
		}
		s.seconds[r.method+" "+r.path] = new(float64)
	}
	for _, c := range wire.Codes() {
		s.problems[c.Name] = new(uint64)
	}
	return s
}

func (s *stats) served(r route, status int, took time.Duration) {
	class := "2xx" // a stream that ended before anything was written has no status
	if status >= 300 && status < 600 {
		class = classes[status/100-2]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.requests[served{r.method + " " + r.path, class}]++
	*s.seconds[r.method+" "+r.path] += took.Seconds()
}

func (s *stats) refused(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.problems[code]++
}

// metrics answers in Prometheus' text format, version 0.0.4.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	status, err := s.o.Node.Status(r.Context())
	if err != nil {
		return err
	}
	var e exposition
	e.node(status)
	e.family("arch_streams", "gauge", "Event streams and followed logs that are open.").value(float64(len(s.streams)))
	s.stats.expose(&e)
	e.process()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, err = w.Write(e.Bytes())
	return ended(err)
}

// exposition collects families of metrics.
type exposition struct {
	bytes.Buffer
	name string // of the family that is written
}

// family begins a family. help is one line.
func (e *exposition) family(name, kind, help string) *exposition {
	e.name = name
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	return e
}

// value writes a metric of the family. labels are names and values in turns.
func (e *exposition) value(v float64, labels ...string) {
	e.WriteString(e.name)
	for i := 0; i < len(labels); i += 2 {
		e.WriteString([]string{"{", ","}[min(i, 1)])
		fmt.Fprintf(e, "%s=\"%s\"", labels[i], labelValue.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	fmt.Fprintf(e, " %s\n", strconv.FormatFloat(v, 'g', -1, 64))
}

var labelValue = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func (e *exposition) node(s agent.Status) {
	e.family("arch_node_info", "gauge", "The program, as labels.").value(1, "version", s.Version, "go", runtime.Version())
	e.family("arch_node_start_time_seconds", "gauge", "When the node started, since 1970.").value(float64(s.Started.Unix()))
	e.family("arch_node_draining", "gauge", "1 if nothing new is started.").value(truth(s.Draining))
	e.family("arch_node_problems", "gauge", "Things that an operator should know.").value(float64(len(s.Problems)))
	e.family("arch_jobs", "gauge", "Jobs by state.")
	for _, state := range agent.States() {
		e.value(float64(s.Jobs[state]), "state", string(state))
	}
	e.family("arch_slots", "gauge", "Executions that there may be at one time.").value(float64(s.Slots))
	for _, r := range []struct {
		name, help string
		of         agent.Resources
	}{
		{"capacity", "What jobs may use together", s.Capacity},
		{"committed", "What active jobs were promised", s.Committed},
	} {
		e.family("arch_"+r.name+"_cpu_cores", "gauge", r.help+": processors.").value(float64(r.of.CPU) / 1000)
		e.family("arch_"+r.name+"_memory_bytes", "gauge", r.help+": memory.").value(float64(r.of.Memory))
		e.family("arch_"+r.name+"_gpus", "gauge", r.help+": devices.").value(float64(r.of.GPU))
	}
	e.family("arch_policy_version", "gauge", "Version of the policy in force; 0: there is none.").value(float64(s.Policy.Version))
	e.family("arch_policy_expiry_time_seconds", "gauge", "When the policy in force expires, since 1970; 0: never, or there is none.").value(seconds(s.Policy.Expires))
	e.family("arch_policy_refused", "gauge", "1 if what lies in the policy file is not in force.").value(truth(s.Policy.Refused != ""))
	e.family("arch_ledger_entries", "gauge", "Entries in the ledger.").value(float64(s.Ledger.Size))
	if s.Ledger.Cosigned != nil {
		e.family("arch_ledger_cosigned_entries", "gauge", "Entries that a quorum of witnesses has cosigned.").value(float64(*s.Ledger.Cosigned))
	}
	for _, m := range []struct {
		name, help string
		value      func(agent.WitnessStatus) float64
	}{
		{"entries", "Entries that a witness has cosigned", func(w agent.WitnessStatus) float64 { return float64(w.Size) }},
		{"cosigned_time_seconds", "When a witness cosigned last, since 1970; 0: never", func(w agent.WitnessStatus) float64 { return seconds(w.At) }},
		{"failures", "Requests to a witness in vain since it cosigned last", func(w agent.WitnessStatus) float64 { return float64(w.Failures) }},
	} {
		if len(s.Ledger.Witnesses) > 0 {
			e.family("arch_witness_"+m.name, "gauge", m.help+"; the witnesses are those of the node's settings.")
		}
		for _, w := range s.Ledger.Witnesses {
			e.value(m.value(w), "witness", w.Name)
		}
	}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s *stats) expose(e *exposition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	routes := slices.Sorted(maps.Keys(s.seconds))
	e.family("arch_http_requests_total", "counter", "Requests by resource and class of status.")
	for _, route := range routes {
		for _, class := range classes {
			e.value(float64(*s.requests[served{route, class}]), "route", route, "class", class)
		}
	}
	e.family("arch_http_request_seconds_total", "counter", "Time that requests took, by resource.")
	for _, route := range routes {
		e.value(*s.seconds[route], "route", route)
	}
	e.family("arch_http_refused_total", "counter", "Requests that reached no resource, by code of the problem.")
	for _, code := range slices.Sorted(maps.Keys(s.problems)) {
		e.value(float64(*s.problems[code]), "code", code)
	}
}

// process tells of the program itself, with the names that Prometheus' own clients use.
func (e *exposition) process() {
	samples := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	e.family("go_goroutines", "gauge", "Goroutines.").value(float64(samples[0].Value.Uint64()))
	e.family("go_memstats_heap_alloc_bytes", "gauge", "Bytes of objects on the heap.").value(float64(samples[1].Value.Uint64()))
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			if pages, err := strconv.ParseFloat(fields[1], 64); err == nil {
				e.family("process_resident_memory_bytes", "gauge", "Memory in use.").value(pages * float64(os.Getpagesize()))
			}
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		e.family("process_open_fds", "gauge", "Open files.").value(float64(len(fds)))
	}
}
