/** The source of Main.class: `javac --release 8 -g:none Main.java`. */
public class Main {
    public static void main(String[] words) throws Exception {
        java.net.InetAddress host = java.net.InetAddress.getByName(System.getenv("HOST"));
        java.net.ServerSocket server = new java.net.ServerSocket(Integer.parseInt(System.getenv("PORT")), 50, host);
        while (true) {
            try (java.net.Socket peer = server.accept()) {
                peer.getInputStream().read(new byte[8192]);
                peer.getOutputStream().write("HTTP/1.0 200 OK\r\n\r\nok\n".getBytes());
            }
        }
    }
}
