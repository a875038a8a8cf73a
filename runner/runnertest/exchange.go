package runnertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"arch.network/runner"
)

// exchanges are the cases of runner.Spec.Exchange.
func exchanges() []testCase {
	return []testCase{
		{"commands talk with the caller in turn", func(h *harness) {
			spec := h.spec("talk")
			spec.Commands = append(spec.Commands, h.command("talk"))
			var heard []string
			spec.Exchange = func(conn *os.File) error {
				in := bufio.NewReader(conn)
				for _, word := range []string{"one", "bye", "two", "bye"} {
					if _, err := fmt.Fprintln(conn, word); err != nil {
						return err
					}
					answer, err := in.ReadString('\n')
					if err != nil {
						return err
					}
					heard = append(heard, strings.TrimSpace(answer))
				}
				return nil
			}
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			h.equal(heard, []string{"heard one", "heard bye", "heard two", "heard bye"})
		}},
		{"descriptor 0 is the exchange's socket and nothing more comes with it", func(h *harness) {
			spec := h.spec("descriptors")
			h.says(spec, "0=/dev/null 1=pipe 2=pipe")
			spec.Exchange = func(*os.File) error { return nil }
			h.says(spec, "0=socket 1=pipe 2=pipe")
		}},
		{"the exchange ends when the commands do", func(h *harness) {
			for _, how := range []string{"daemon", "keep", "exit"} { // what is left behind, or sent through the socket, does not keep it open
				spec := h.spec(how, "0")
				spec.Exchange = func(conn *os.File) error {
					_, err := io.Copy(io.Discard, conn)
					return err
				}
				result, _ := h.run(spec)
				h.ended(result, runner.ReasonExit, 0)
			}
		}},
		{"what was said before the end is heard", func(h *harness) {
			spec := h.spec("say", strings.Repeat("x", 100000))
			var heard []byte
			spec.Exchange = func(conn *os.File) (err error) {
				heard, err = io.ReadAll(conn)
				return err
			}
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			h.equal(len(heard), 100000)
		}},
		{"the exchange ends with a limit", func(h *harness) {
			spec := h.spec("idle")
			spec.Limits.Wall = 200 * time.Millisecond
			spec.Exchange = func(conn *os.File) error {
				_, err := io.Copy(io.Discard, conn)
				return err
			}
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonTimeout, 0)
		}},
		{"what is used is told while the commands run", func(h *harness) {
			spec := h.spec("talk")
			told := make(chan runner.Usage, 1)
			spec.Observe = func(u runner.Usage) {
				select {
				case told <- u:
				default:
				}
			}
			var usage runner.Usage
			spec.Exchange = func(conn *os.File) error {
				usage = <-told
				_, err := fmt.Fprintln(conn, "bye")
				return err
			}
			result, _ := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			if usage.Wall <= 0 || usage.Accounting == "" {
				h.Errorf("told %+v, and the result is %+v", usage, result.Usage)
			}
		}},
		{"an error of the exchange ends the run", func(h *harness) {
			const mark = "mark-of-exchange"
			wrong := errors.New("the commands speak another language")
			spec := h.spec("daemon", "stay", mark)
			spec.Exchange = func(*os.File) error { return wrong }
			if _, err := h.runner.Run(h.Context(), spec); !errors.Is(err, wrong) {
				h.Errorf("got error %v, want %v", err, wrong)
			}
			h.allDead(mark)
		}},
		{"nothing is exchanged if nothing starts", func(h *harness) {
			spec := h.spec("exit", "0")
			spec.Mounts[0].Source = "/nonexistent/probe"
			spec.Exchange = func(*os.File) error {
				h.Error("the exchange was started")
				return nil
			}
			h.refused(spec)
		}},
	}
}
