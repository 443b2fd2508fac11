<%@ page contentType="text/html;charset=UTF-8" %>
<!DOCTYPE html>
<title>A war</title>
<p>Hello from a JSP, 6 × 7 is <%= 6 * 7 %>.</p>
