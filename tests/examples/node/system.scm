;;; A machine that is a node of arch:
;;;
;;;   guix system -L guix build tests/examples/node/system.scm

(use-modules (arch services) (gnu) (gnu services networking))

(operating-system
  (host-name "node")
  (timezone "Etc/UTC")
  (locale "en_US.utf8")
  (bootloader (bootloader-configuration
               (bootloader grub-bootloader)
               (targets '("/dev/vda"))))
  (file-systems (cons (file-system
                        (device (file-system-label "root"))
                        (mount-point "/")
                        (type "ext4"))
                      %base-file-systems))
  (services (cons* (service dhcpcd-service-type)
                   (service arch-node-service-type
                            (arch-node-configuration
                             (listen '("127.0.0.1:7340"))
                             (hosts '("node.example"))))
                   %base-services)))
