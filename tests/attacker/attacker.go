// Package attacker shows that a hostile job gets nowhere: its tests run command attack, below this package, under every
// driver of runner's contract, as root and as an ordinary user, and demand that each of its attempts is denied and that what it
// aimed at is unharmed. A negative control runs the same program unconfined in a guest (see tests/guest) that is thrown away, and
// demands that the attempts succeed there: an attack that cannot succeed proves nothing.
package attacker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Outcome is what became of an attempt.
type Outcome string

// The outcomes.
const (
	Denied        Outcome = "denied"
	Succeeded     Outcome = "succeeded"
	NotApplicable Outcome = "not-applicable" // this kind of machine has nothing to attack there: the detail says what is missing
)

// Report is what the attacker says of one attempt.
type Report struct {
	Name    string  `json:"name"`
	Class   string  `json:"class"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail"`
}

// Targets are what attempts aim at. They lie outside of the confinement; zero values leave the attempt without a target.
type Targets struct {
	Token string // is in everything that must not be read, and what must not be changed holds nothing else

	Canary  string // path of a file that anybody may read
	DropOff string // path of a directory that anybody may write to

	Victim int // process id of a process of the attacker's own user, outside

	Abstract string // name of an abstract socket that sends the token
	TCP      int    // port on 127.0.0.1 that sends the token
	UDP      int    // port on 127.0.0.1 that answers with the token
	Metadata bool   // 169.254.169.254 and fd00:ec2::254 exist, and send the token at port 80

	SHM   int    // key of a System V shared memory segment that holds the token
	Queue string // name of a POSIX message queue
	Key   string // description of a key of type "user" in the user keyring, which holds the token

	// Places inside of the confinement.
	Input    string // a file that is given read-only, and holds the token
	Shared   string // a directory of the host that is given writable; empty: none
	Scratch  string // a writable directory that is not the host's
	SetUID   string // a program of root's with the set-user-ID bit: this one
	FileCaps string // a program with capabilities in its attributes: this one
}

// TargetsVariable names the environment variable that holds the Targets, as JSON.
const TargetsVariable = "ARCH_ATTACK_TARGETS"

// TargetsFromEnv reads them; without the variable there are none.
func TargetsFromEnv(getenv func(string) string) (Targets, error) {
	var t Targets
	text := getenv(TargetsVariable)
	if text == "" {
		return t, nil
	}
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return t, fmt.Errorf("read %s: %w", TargetsVariable, err)
	}
	return t, nil
}

// Env returns the variable that hands the targets over.
func (t Targets) Env() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and numbers
	}
	return TargetsVariable + "=" + string(text)
}

// ReadReports reads what the attacker wrote.
func ReadReports(r io.Reader) ([]Report, error) {
	var reports []Report
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var report Report
		if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
			return nil, fmt.Errorf("read report %q: %w", lines.Text(), err)
		}
		reports = append(reports, report)
	}
	return reports, lines.Err()
}
