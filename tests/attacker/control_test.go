package attacker_test

import "testing"

func testControl(t *testing.T) {}
