// Command attack is a hostile job: it tries everything that a confinement must refuse, and judges each attempt by its effect.
//
//	attack list                 names of the attempts, one a line
//	attack all                  makes every attempt, in further processes
//	attack from NAME            makes that and those behind it, up to one that succeeds
//	attack worker               reads a NAME from descriptor 0, and makes that and all those behind it, there
//	attack one NAME             makes one
//	attack leaks                makes the one that looks at inherited descriptors
//	attack collude NAME FILE    makes one half of a conspiracy of two jobs
//	attack race PATH            leaves a process behind that goes on swapping PATH
//	attack output KIND PATH     makes an output that a collector must not trust
//	attack bomb KIND            fork, threads, memory, shared, disk, inodes, sockets, pipes, memory-files, segments, messages,
//	                            log or time: uses up what there is of it
//	attack echo ARGUMENT...     writes its arguments and its environment, as a JSON list
//	attack whoami               tells its privileges: for set-id programs
//
// It writes a Report a line, as JSON. The variable ARCH_ATTACK_TARGETS holds the Targets, which whoever starts it has made:
// without a target an attempt cannot show its effect. An attempt counts as succeeded if it reached something outside of the
// confinement, changed what others use, or opened an interface of the kernel that a job has no use for; where the
// whole effect would need special hardware or ruin the machine, getting past the kernel's check of permissions counts.
// Nothing that it does to its targets harms them, and it never does what it cannot take back to anything else; but what it
// tries to open it would get, so it must not be run unconfined on a machine that matters.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"arch.network/tests/attacker"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	leaked := inherited() // before anything else opens files
	t, err := attacker.TargetsFromEnv(os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "attack: %v\n", err)
		return 64
	}
	switch {
	case len(args) == 1 && args[0] == "list":
		for _, a := range attempts() {
			fmt.Println(a.name)
		}
	case len(args) == 1 && args[0] == "leaks":
		reportLeaks(leaked)
	case len(args) == 1 && args[0] == "all":
		all(leaked)
	case len(args) == 2 && args[0] == "from":
		return from(args[1], t)
	case len(args) == 2 && args[0] == "one":
		return one(args[1], t)
	case len(args) == 3 && args[0] == "collude":
		return collude(args[1], args[2], t)
	case len(args) == 2 && args[0] == "race":
		return race(args[1], t)
	case len(args) == 3 && args[0] == "output":
		return output(args[1], args[2], t)
	case len(args) == 2 && args[0] == "bomb":
		return bomb(args[1])
	case len(args) == 1 && args[0] == "worker":
		return worker(t)
	case len(args) >= 1 && args[0] == "echo":
		json.NewEncoder(os.Stdout).Encode(append(args[1:], os.Environ()...))
	case len(args) == 1 && args[0] == "whoami":
		fmt.Println(privileges())
	default:
		fmt.Fprintln(os.Stderr, "usage: attack list | all | from NAME | worker | one NAME | leaks | collude NAME FILE | race PATH | output KIND PATH | bomb KIND | echo ARGUMENT... | whoami")
		return 64
	}
	return 0
}

// attempt is one thing to try.
type attempt struct {
	name, class string
	try         func(t attacker.Targets) verdict
}

// verdict is what an attempt came to.
type verdict struct {
	outcome attacker.Outcome
	detail  string
}

func denied(err error) verdict { return verdict{attacker.Denied, err.Error()} }

func deniedf(format string, args ...any) verdict {
	return verdict{attacker.Denied, fmt.Sprintf(format, args...)}
}

func succeeded(format string, args ...any) verdict {
	return verdict{attacker.Succeeded, fmt.Sprintf(format, args...)}
}

func notApplicable(format string, args ...any) verdict {
	return verdict{attacker.NotApplicable, fmt.Sprintf(format, args...)}
}

// judge turns the error of an act whose success is the effect into a verdict.
func judge(err error, effect string) verdict {
	if err == nil {
		return succeeded("%s", effect)
	}
	return denied(err)
}

// call makes a system call.
func call(nr uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// judgeCall makes a system call whose success is the effect.
func judgeCall(nr uintptr, args ...uintptr) verdict {
	r, err := call(nr, args...)
	return judge(err, fmt.Sprintf("returned %d", r))
}

// reached makes a system call that cannot do harm as it is called: any error beyond refusal shows that the kernel would have done it.
func reached(nr uintptr, args ...uintptr) verdict {
	_, err := call(nr, args...)
	if err == nil || !refusal(err) {
		return succeeded("the kernel went on to: %v", err)
	}
	return denied(err)
}

// refusal reports whether err is how permission is refused.
func refusal(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSYS)
}

// attempts are all of them; order and names are stable.
func attempts() []attempt {
	return slices.Concat(readings(), writings(), mountings(), namespaces(), processes(), privilegeAttempts(), kernelAttempts(),
		settings(), devices(), sockets(), sharings())
}

// all makes each attempt, several in one process as long as they are denied. One that ends its process counts as denied by that.
func all(leaked []string) {
	reportLeaks(leaked)
	list := attempts()[1:]
	for len(list) > 0 {
		made := batch(list[0].name)
		if made == 0 {
			made = 1
		}
		list = list[made:]
	}
}

// batch makes the attempts from one named first on, in another process, and returns how many have reported.
func batch(first string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "from", first)
	text, err := cmd.Output()
	os.Stdout.Write(text[:bytes.LastIndexByte(text, '\n')+1])
	made := bytes.Count(text, []byte("\n"))
	if err == nil {
		return made
	}
	list := attempts()
	i := slices.IndexFunc(list, func(a attempt) bool { return a.name == first }) + made
	if i < len(list) {
		report(json.NewEncoder(os.Stdout), list[i], deniedf("the process ended: %v", err))
	}
	return made + 1
}

// from makes attempts until one has succeeded, which may have changed the process, and to the end of a class at most.
func from(first string, t attacker.Targets) int {
	list := attempts()
	i := slices.IndexFunc(list, func(a attempt) bool { return a.name == first })
	if i < 0 {
		return 64
	}
	class := list[i].class
	for ; i < len(list) && list[i].class == class; i++ {
		v := list[i].try(t)
		report(json.NewEncoder(os.Stdout), list[i], v)
		if v.outcome == attacker.Succeeded {
			break
		}
	}
	return 0
}

// worker makes the attempts in its own process, which may end by each of them, and reports to descriptor 0.
func worker(t attacker.Targets) int {
	conn := os.NewFile(0, "conn")
	name, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 1
	}
	list := attempts()
	i := slices.IndexFunc(list, func(a attempt) bool { return a.name == strings.TrimSpace(name) })
	if i < 0 {
		return 64
	}
	for _, a := range list[i:] {
		report(json.NewEncoder(conn), a, a.try(t))
	}
	return 0
}

// reportLeaks is the attempt that is made before anything is opened.
func reportLeaks(leaked []string) {
	report(json.NewEncoder(os.Stdout), attempts()[0], leaks(leaked))
}

func leaks(leaked []string) verdict {
	if len(leaked) > 0 {
		return succeeded("inherited: %s", strings.Join(leaked, ", "))
	}
	return deniedf("nothing beyond the standard descriptors")
}

func one(name string, t attacker.Targets) int {
	for _, a := range attempts() {
		if a.name == name {
			report(json.NewEncoder(os.Stdout), a, a.try(t))
			return 0
		}
	}
	fmt.Fprintf(os.Stderr, "attack: no attempt %q\n", name)
	return 64
}

func report(out *json.Encoder, a attempt, v verdict) {
	out.Encode(attacker.Report{Name: a.name, Class: a.class, Outcome: v.outcome, Detail: v.detail})
}
