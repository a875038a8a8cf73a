// Command probe looks at its surroundings from inside a confinement and says what it sees, one line a fact. The suite
// of runnertest builds it, confines it, and compares what it says.
package main

import (
	"fmt"
	"os"
	"sort"
	"strconv"
)

// actions are what the probe can do, by the name that its first argument gives.
var actions = map[string]func(args []string){
	"abstract":    connectAbstract,
	"alloc":       allocate,
	"bad-clocks":  badClocks,
	"bits32":      call32Bit,
	"children":    children,
	"connect":     connect,
	"daemon":      daemonize,
	"denied":      tryDenied,
	"describe":    describe,
	"descriptors": func([]string) { fmt.Println(descriptors()) },
	"devices":     useDevices,
	"dump":        dumpFiles,
	"entries":     listEntries,
	"env":         printEnv,
	"exit":        func(args []string) { os.Exit(number(args[0])) },
	"first":       attackFirst,
	"flood":       flood,
	"forks":       forkUntilRefused,
	"idle":        func([]string) { idle() },
	"keep":        keepOpen,
	"load":        load,
	"make":        makeTree,
	"open":        openPaths,
	"raise":       raise,
	"reach":       reach,
	"resolve":     resolve,
	"say":         sayByExchange,
	"signals":     signalFirst,
	"size":        sizeOf,
	"spin":        spin,
	"steady":      tellSteady,
	"stops":       stopAndGo,
	"talk":        talk,
	"thread":      execInThread,
	"threads":     threads,
	"time":        tellTime,
	"until":       waitUntil,
	"write":       writePaths,
}

func main() {
	if len(os.Args) < 2 || actions[os.Args[1]] == nil {
		names := []string{}
		for name := range actions {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintln(os.Stderr, "probe: the first argument is one of", names)
		os.Exit(64)
	}
	actions[os.Args[1]](os.Args[2:])
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fail(err)
	}
	return n
}

// fail ends the probe when it cannot do what it was asked for; what is being tested never ends it.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(65)
}

// say prints one fact: its name, and the name of the error or "ok".
func say(name string, err error) { fmt.Printf("%s: %s\n", name, word(err)) }
